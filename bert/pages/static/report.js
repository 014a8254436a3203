// The curves of a report: drawn by uPlot, zoomed together, smoothed, over steps, tokens or hours; renewed if it is live.
"use strict";

const HUES = 6;
const DASHES = [[], [9, 4], [2, 3]];
const BORDERS = ["solid", "dashed", "dotted"];
const MOST_BANDS = 3;

let page = pageData();
let shown = sent(document);
const view = { axis: "step", smoothing: 0.86, range: null, hidden: new Set() };
const charts = [];

/** The colour and the dashes of the n-th run, or of the n-th line of a single run. */
function look(n) {
  return { colour: themed(`--series-${(n % HUES) + 1}`), style: Math.floor(n / HUES) % DASHES.length };
}

function lookOf(line, place) {
  if (line.baseline) return { colour: themed("--series-6"), style: 1 };
  return look(page.runs.length > 1 ? line.run : place);
}

/** A short number for an axis or a tip. */
function brief(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) {
      const scaled = value / (letter === "k" ? 1e3 : unit);
      return `${Number(scaled.toPrecision(4))}${letter}`;
    }
  }
  return size > 0 && size < 1e-3 ? Number(value.toPrecision(3)).toExponential().replace("e-", "e−") : String(Number(value.toPrecision(4)));
}

/** Where some steps of a run are on the chosen axis, between the lines that its clock has. */
function placed(run, steps) {
  if (view.axis === "step") return steps;
  const from = run.clock.step, to = run.clock[view.axis];
  let at = 0;
  return steps.map((step) => {
    while (at < from.length - 2 && from[at + 1] < step) at++;
    if (from.length < 2) return to[0];
    const share = (step - from[at]) / (from[at + 1] - from[at] || 1);
    return to[at] + Math.min(Math.max(share, 0), 1) * (to[at + 1] - to[at]);
  });
}

/** The exponential moving average, without the bias to its start; of few values over fewer of them. */
function smoothed(values, most) {
  const weight = Math.max(0, Math.min(most, 1 - 8 / values.length));
  let mean = 0, seen = 1;
  return values.map((value) => {
    mean = weight * mean + (1 - weight) * value;
    seen *= weight;
    return mean / (1 - seen);
  });
}

class Chart {
  constructor(figure, spec) {
    this.figure = figure;
    this.place = figure.querySelector(".plot");
    this.spec = spec;
    this.isLog = spec.is_log;
    const log = figure.querySelector(".log");
    log.addEventListener("click", () => {
      this.isLog = !this.isLog;
      log.setAttribute("aria-pressed", String(this.isLog));
      this.draw();
    });
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    this.place.addEventListener("blur", () => showTip(null));
  }

  get lines() {
    return this.spec.lines.map((line, place) => ({ ...line, place }))
      .filter((line) => line.baseline || !view.hidden.has(line.run));
  }

  draw() {
    this.plot?.destroy();
    this.drawn = this.lines;
    const bands = [], series = [{}], tables = [];
    const plain = this.drawn.filter((line) => !line.points && !line.baseline);
    const hasBands = plain.length <= MOST_BANDS;
    const positive = (values) => this.isLog ? values.map((value) => value > 0 ? value : null) : values;
    for (const line of this.drawn) {
      const { colour, style } = lookOf(line, line.place);
      const isPlain = !line.points && !line.baseline;
      if (line.baseline) Object.assign(line, this.stretched(line));
      line.at = placed(page.runs[line.run], line.x);
      const mean = isPlain && !this.spec.exact ? smoothed(line.mean, view.smoothing) : line.mean;
      const columns = [line.at, positive(mean)];
      if (isPlain && hasBands && !this.spec.exact) {
        columns.push(positive(line.high));
        if (line.low.some((low, place) => low < line.high[place])) {
          columns.push(positive(line.low));
          bands.push({ series: [series.length + 1, series.length + 2], fill: `${colour}2b` });
        }
      }
      series.push({
        stroke: colour, dash: DASHES[style], width: line.points ? 2.25 : 1.75, spanGaps: true,
        points: { show: line.points && line.x.length < 60, size: 6, fill: themed("--card"), width: 2 },
      });
      for (let extra = 2; extra < columns.length; extra++) {
        series.push({ stroke: `${colour}50`, width: 1, spanGaps: true, points: { show: false } });
      }
      tables.push(columns);
    }
    const data = tables.length ? uPlot.join(tables) : [[]];
    this.whole = data[0].length ? [data[0][0], data[0].at(-1)] : [0, 1];
    this.plot = new uPlot(this.options(series, bands), data, this.place);
    if (view.range) this.show(view.range);
    this.legend();
  }

  /** A level to compare with, over the whole width of the other lines. */
  stretched(line) {
    const steps = this.drawn.filter((other) => !other.baseline).flatMap((other) => [other.x[0], other.x.at(-1)]);
    const around = (values) => [values[0], ...values, values.at(-1)];
    const x = [Math.min(...steps, line.x[0]), ...line.x, Math.max(...steps, line.x.at(-1))];
    return { x, mean: around(line.mean), low: around(line.low), high: around(line.high) };
  }

  options(series, bands) {
    const axis = {
      stroke: themed("--soft"), font: "12px system-ui, sans-serif",
      grid: { stroke: themed("--grid"), width: 1 }, ticks: { show: false },
      values: (_, values) => values.map((value) => value === null ? null : brief(value)),
    };
    const range = (_, least, most) => {
      if (least === null) return [0, 1];
      const low = this.spec.from_zero ? Math.min(0, least) : least;
      const margin = (most - low) * 0.06 || Math.abs(most) * 0.1 || 1;
      return [this.spec.from_zero ? low : low - margin, most + margin];
    };
    return {
      ...this.size(), series, bands, legend: { show: false }, padding: [8, 18, 0, 0],
      focus: { alpha: page.runs.length > 1 ? 0.25 : 1 },
      cursor: {
        y: false, drag: { x: true, y: false }, points: { size: 7 },
        focus: { prox: page.runs.length > 1 ? 24 : -1 },
      },
      scales: {
        x: { time: false },
        y: this.isLog ? { distr: 3 } : { range },
      },
      axes: [{ ...axis, size: 30, space: 60 }, { ...axis, size: 54, space: 34 }],
      hooks: {
        setScale: [(plot, key) => key === "x" && this.onZoom(plot)],
        setCursor: [(plot) => this.onCursor(plot)],
      },
    };
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: innerWidth < 640 ? 200 : 230 };
  }

  /** Zoom without telling the other charts. */
  show(range) {
    this.isFollowing = true;
    const [from, to] = range ?? this.whole;
    this.plot.batch(() => this.plot.setScale("x", { min: from, max: to }));
    this.isFollowing = false;
  }

  onZoom(plot) {
    if (this.isFollowing || plot !== this.plot) return;
    const { min, max } = plot.scales.x;
    const isWhole = min <= this.whole[0] && max >= this.whole[1];
    if (min !== null && min < max) zoomTo(isWhole ? null : [min, max], this);
  }

  /** Show what the lines have where the pointer is. */
  onCursor(plot) {
    const { left, top } = plot.cursor;
    if (!(left >= 0)) return showTip(null);
    const at = plot.posToVal(left, "x");
    const rows = this.drawn.map((line) => this.row(line, at));
    const title = { step: "step", tokens: "tokens", hours: "hours" }[view.axis];
    const box = plot.over.getBoundingClientRect();
    const table = element("table", {}, element("tbody", {}, ...rows.slice(0, 14)));
    showTip([element("small", {}, `${title} ${brief(at)}`), table], box.left + left, box.top + Math.max(top, 0));
  }

  row(line, at) {
    let nearest = 0;
    line.at.forEach((x, place) => { if (Math.abs(x - at) < Math.abs(line.at[nearest] - at)) nearest = place; });
    const name = page.runs.length > 1 && !line.baseline ? page.runs[line.run].name : line.label;
    const [low, high] = [line.low[nearest], line.high[nearest]];
    const spread = low < high ? ` (${brief(low)} – ${brief(high)})` : "";
    return element("tr", {}, element("td", {}, swatch(lookOf(line, line.place)), ` ${name}`),
      element("td", {}, element("strong", {}, brief(line.mean[nearest])), spread));
  }

  /** By keyboard: arrows move the cursor, + and − zoom around it, Escape shows everything. */
  onKey(event) {
    const { plot } = this, width = plot.over.clientWidth;
    const left = plot.cursor.left >= 0 ? plot.cursor.left : width / 2;
    const moves = { ArrowLeft: -width / 60, ArrowRight: width / 60, Home: -width, End: width };
    if (event.key in moves) {
      plot.setCursor({ left: Math.min(Math.max(left + moves[event.key], 0), width), top: 20 });
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5, this, left / width);
    else if (event.key === "-") zoomBy(2, this, left / width);
    else if (event.key === "Escape") { showTip(null); zoomTo(null); }
    else return;
    event.preventDefault();
  }

  legend() {
    const place = this.figure.querySelector(":scope > .legend");
    const named = this.drawn.filter((line) => page.runs.length === 1 || line.baseline);
    const entries = named.map((line) => element("span", {}, swatch(lookOf(line, line.place)), line.label));
    place.replaceChildren(...(named.length > 1 || page.runs.length > 1 ? entries : []));
  }
}

function swatch({ colour, style }) {
  const made = element("span", { class: "swatch" });
  made.style.borderTopColor = colour;
  made.style.borderTopStyle = BORDERS[style];
  return made;
}

/** Show a range of the horizontal axis in all charts; null is the whole run. */
function zoomTo(range, from = null) {
  view.range = range;
  for (const chart of charts) if (chart !== from) chart.show(range);
}

function zoomBy(factor, chart = charts[0], around = 0.5) {
  if (!chart) return;
  const [first, last] = chart.whole, [from, to] = view.range ?? chart.whole;
  const centre = from + (to - from) * around, width = (to - from) * factor;
  if (width >= last - first) return zoomTo(null);
  const start = Math.min(Math.max(centre - width * around, first), last - width);
  zoomTo([start, start + width]);
}

function drawAll() {
  for (const chart of charts) chart.draw();
  for (const mark of document.querySelectorAll(".swatch[data-run]")) {
    const { colour, style } = look(Number(mark.dataset.run));
    mark.style.borderTopColor = colour;
    mark.style.borderTopStyle = BORDERS[style];
  }
}

function listen() {
  for (const button of document.querySelectorAll("button[data-x]")) {
    button.addEventListener("click", () => {
      for (const other of document.querySelectorAll("button[data-x]")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      Object.assign(view, { axis: button.dataset.x, range: null });
      drawAll();
    });
  }
  document.getElementById("smoothing").addEventListener("input", (event) => {
    view.smoothing = Number(event.target.value);
    drawAll();
  });
  document.getElementById("zoom-in").addEventListener("click", () => zoomBy(0.5));
  document.getElementById("zoom-out").addEventListener("click", () => zoomBy(2));
  document.getElementById("zoom-all").addEventListener("click", () => zoomTo(null));
  for (const box of document.querySelectorAll("input[data-run]")) {
    box.addEventListener("change", () => {
      view.hidden[box.checked ? "delete" : "add"](Number(box.dataset.run));
      drawAll();
    });
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return;  // on a phone, the bars of the browser come and go
    width = innerWidth;
    for (const chart of charts) chart.plot.setSize(chart.size());
  });
}

/** What a page says, as the server sent it: before its charts are drawn, and without the time when it was made. */
function sent(from) {
  return from.getElementById("data").textContent + from.getElementById("main").innerHTML;
}

/** Ask the server for the page again, and take over what is new in it. */
async function renew() {
  let fresh;
  try {
    const answer = await fetch(location.href, { cache: "no-cache" });
    if (!answer.ok) return;
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return;  // the server has ended, or will be back
  }
  if (sent(fresh) === shown) return;
  shown = sent(fresh);
  const data = JSON.parse(fresh.getElementById("data").textContent);
  const isOther = fresh.querySelectorAll("section").length !== document.querySelectorAll("section").length;
  if (isOther || data.charts.length !== page.charts.length) return location.reload();
  page = data;
  for (const part of ["header .heading", "#summary", "#samples", "#corpus", "#pairs", "#tasks", "#results", "#environment"]) {
    document.querySelector(part)?.replaceChildren(...(fresh.querySelector(part)?.childNodes ?? []));
  }
  charts.forEach((chart, place) => { chart.spec = page.charts[place]; });
  drawAll();
}

for (const figure of document.querySelectorAll("[data-chart]")) {
  charts.push(new Chart(figure, page.charts[Number(figure.dataset.chart)]));
}
if (charts.length) listen();
onTheme(drawAll);
if (page.live) setInterval(renew, 3000);
