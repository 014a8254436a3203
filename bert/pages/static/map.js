// The map of vectors: a point for each text, coloured by a column; the nearest neighbours of the one that is chosen.
"use strict";

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "ring"];
const SHOWN = 200;

(function mountMap() {
  const data = pageData();
  const { points, groups } = data;
  const noun = data.labels ? "word" : "text";
  const state = { chosen: null, over: null, hidden: new Set(), query: "" };
  const view = { scale: 1, x: 0, y: 0 };

  const canvas = element("canvas", {
    class: "map", tabindex: 0, role: "img",
    "aria-label": `${points.length} texts as points of a plane. Arrow keys go from point to point, plus and minus zoom; the list beside has the same texts.`,
  });
  const list = element("ul", { class: "texts" });
  const count = element("p", { class: "soft", role: "status" });
  const about = element("div", { class: "card about", "aria-live": "polite" });
  const legend = element("div", { class: "legend" });

  // ——— places ———

  const bounds = points.reduce((box, { x, y }) => ({
    left: Math.min(box.left, x), right: Math.max(box.right, x), top: Math.min(box.top, y), bottom: Math.max(box.bottom, y),
  }), { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity });
  const span = Math.max(bounds.right - bounds.left, bounds.bottom - bounds.top) || 1;
  let width = 0, height = 0;

  /** Both axes have the same scale, so distances on the screen are those of the plane. */
  function unit() {
    const pad = 26;
    return view.scale * Math.min((width - 2 * pad) / (bounds.right - bounds.left || span), (height - 2 * pad) / (bounds.bottom - bounds.top || span));
  }
  function place({ x, y }) {
    const size = unit();
    return [width / 2 + (x - (bounds.left + bounds.right) / 2) * size + view.x, height / 2 - (y - (bounds.top + bounds.bottom) / 2) * size + view.y];
  }
  const visible = (point) => !state.hidden.has(point.group) && point.text.toLowerCase().includes(state.query);

  // ——— drawing ———

  function shape(pen, kind, x, y, r) {
    pen.beginPath();
    if (kind === "circle" || kind === "ring") pen.arc(x, y, r, 0, 7);
    else if (kind === "square") pen.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
    else if (kind === "triangle") { pen.moveTo(x, y - 1.15 * r); pen.lineTo(x + r, y + 0.8 * r); pen.lineTo(x - r, y + 0.8 * r); pen.closePath(); }
    else if (kind === "diamond") { pen.moveTo(x, y - 1.25 * r); pen.lineTo(x + 1.25 * r, y); pen.lineTo(x, y + 1.25 * r); pen.lineTo(x - 1.25 * r, y); pen.closePath(); }
    else { const a = 0.42 * r, b = 1.15 * r; for (const [dx, dy] of [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]]) pen.lineTo(x + dx, y + dy); pen.closePath(); }
    if (kind === "ring") { pen.lineWidth = r * 0.55; pen.stroke(); } else pen.fill();
  }
  function colourOf(point) {
    if (data.scale) {
      if (point.number === null) return themed("--soft");
      const share = (point.number - data.scale[0]) / (data.scale[1] - data.scale[0] || 1);
      return `color-mix(in oklab, ${themed("--series-2")} ${(100 * share).toFixed(0)}%, ${themed("--series-1")})`;
    }
    if (data.color === null) return themed("--series-1");
    return point.group === null ? themed("--soft") : point.group < COLOURS.length ? themed(COLOURS[point.group]) : themed("--soft");
  }
  const shapeOf = (point) => data.scale || point.group === null ? "circle" : SHAPES[Math.min(point.group, SHAPES.length - 1)];

  function draw() {
    const ratio = devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    [width, height] = [box.width, box.height];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const r = points.length > 1500 ? 3 : points.length > 300 ? 4 : 5.5;
    const near = new Set((state.chosen?.near ?? []).map(([other]) => points[other]));
    if (state.chosen) {
      pen.strokeStyle = themed("--soft");
      pen.lineWidth = 1;
      const [x, y] = place(state.chosen);
      for (const other of near) { pen.beginPath(); pen.moveTo(x, y); pen.lineTo(...place(other)); pen.stroke(); }
    }
    for (const point of points) {
      if (!visible(point)) continue;
      const [x, y] = place(point), strong = !state.chosen || point === state.chosen || near.has(point);
      pen.globalAlpha = strong ? 0.88 : 0.3;
      pen.fillStyle = pen.strokeStyle = colourOf(point);
      shape(pen, shapeOf(point), x, y, near.has(point) ? r + 1.5 : r);
    }
    pen.globalAlpha = 1;
    for (const point of [state.chosen, state.over]) {
      if (!point) continue;
      pen.strokeStyle = themed("--ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...place(point), r + 5, 0, 7);
      pen.stroke();
    }
    writeLabels(pen, near);
  }
  /** The words of a map of words stand beside their points, as far as there is room. */
  function writeLabels(pen, near) {
    if (!data.labels) return;
    pen.font = `13px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    const taken = [];
    const first = [state.chosen, ...near].filter(Boolean);
    for (const point of [...first, ...points.filter((each) => !first.includes(each))]) {
      const [x, y] = place(point);
      if (!visible(point) || x < 0 || x > width || y < 0 || y > height) continue;
      const box = [x + 7, y - 9, x + 9 + pen.measureText(point.text).width, y + 9];
      if (box[2] > width || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      pen.fillStyle = themed(first.includes(point) ? "--ink" : "--soft");
      pen.fillText(point.text, box[0], y);
    }
  }

  // ——— choosing ———

  function choose(point, moves = false) {
    state.chosen = point;
    about.replaceChildren();
    if (point === null) {
      about.append(element("h2", {}, "Nearest neighbours"), element("p", { class: "soft" }, `Choose a point, or a ${noun} of the list, to see which ${noun}s lie nearest to it by cosine.`));
    } else {
      about.append(
        element("h2", {}, data.labels ? point.text : "Nearest neighbours"),
        data.labels ? "" : element("p", { class: "chosen" }, point.text), nameOf(point),
        element("ol", { class: "near" }, ...point.near.map(([other, cosine]) => element("li", {},
          element("button", { type: "button", class: "text", onclick: () => choose(points[other]) }, points[other].text), element("span", { class: "soft number" }, cosine.toFixed(2))))),
        element("p", { class: "soft" }, `Cosine, in all ${data.dimensions} dimensions.`),
      );
    }
    if (moves) canvas.focus();
    draw();
  }
  function nameOf(point) {
    const value = data.color === null ? null : data.scale ? point.number : point.group === null ? null : groups[point.group];
    return value === null ? "" : element("p", { class: "soft" }, `${data.color}: ${value}`);
  }
  function at(event) {
    const box = canvas.getBoundingClientRect(), [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, least = 14;
    for (const point of points) {
      if (!visible(point)) continue;
      const [px, py] = place(point), distance = Math.hypot(px - x, py - y);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }
  function tellOver(event) {
    const point = at(event);
    if (point !== state.over) { state.over = point; draw(); }
    showTip(point && [element("div", {}, point.text), nameOf(point)], event.clientX, event.clientY);
    canvas.style.cursor = point ? "pointer" : "grab";
  }
  function zoom(factor, x = width / 2, y = height / 2) {
    const scale = Math.min(60, Math.max(1, view.scale * factor)), change = scale / view.scale;
    view.x = (view.x + width / 2 - x) * change + x - width / 2;
    view.y = (view.y + height / 2 - y) * change + y - height / 2;
    view.scale = scale;
    if (scale === 1) view.x = view.y = 0;
    draw();
  }
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, moved: 0 }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) { tellOver(event); return; }
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag = { x: event.clientX, y: event.clientY, moved: drag.moved + Math.abs(dx) + Math.abs(dy) };
    if (view.scale > 1) { view.x += dx; view.y += dy; draw(); }
  });
  canvas.addEventListener("pointerup", (event) => { if (drag && drag.moved < 5) choose(at(event)); drag = null; });
  canvas.addEventListener("pointerleave", () => { state.over = null; showTip(null); draw(); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !canvas.matches(":focus")) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "Escape") choose(null);
    else if (event.key.startsWith("Arrow")) { event.preventDefault(); step(event.key); }
  });
  /** To the point that is nearest in the direction of an arrow key. */
  function step(key) {
    const [ux, uy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    const [x, y] = state.chosen ? place(state.chosen) : [width / 2, height / 2];
    let best = null, least = Infinity;
    for (const point of points) {
      if (point === state.chosen || !visible(point)) continue;
      const [px, py] = place(point), along = (px - x) * ux + (py - y) * uy, across = Math.abs((px - x) * uy) + Math.abs((py - y) * ux);
      if ((state.chosen ? along > 0.5 : true) && Math.abs(along) + 2 * across < least) [best, least] = [point, Math.abs(along) + 2 * across];
    }
    if (best) choose(best);
  }

  // ——— beside the map ———

  function tellList() {
    const found = points.filter(visible);
    count.textContent = `${found.length.toLocaleString("en")} ${noun}${found.length === 1 ? "" : "s"}${found.length > SHOWN ? `; the first ${SHOWN} are listed` : ""}`;
    list.replaceChildren(...found.slice(0, SHOWN).map((point) => element("li", {}, element("button", { type: "button", class: "text", onclick: () => choose(point) }, point.text))));
  }
  function sample(group) {
    const box = element("canvas", { width: 28, height: 28, "aria-hidden": true });
    const pen = box.getContext("2d"), like = { group, number: null };
    pen.fillStyle = pen.strokeStyle = colourOf(like);
    shape(pen, shapeOf(like), 14, 14, 9);
    return box;
  }
  function tellLegend() {
    legend.replaceChildren();
    if (data.color === null) return;
    if (data.scale) {
      legend.append(element("span", { class: "soft" }, `${data.color}:`), element("span", { class: "number" }, String(data.scale[0])), element("span", { class: "ramp", "aria-hidden": true }), element("span", { class: "number" }, String(data.scale[1])));
      return;
    }
    legend.append(element("span", { class: "soft" }, `${data.color}:`), ...groups.map((name, group) => {
      const button = element("button", {
        type: "button", "aria-pressed": String(!state.hidden.has(group)),
        onclick: () => { state.hidden.has(group) ? state.hidden.delete(group) : state.hidden.add(group); button.setAttribute("aria-pressed", String(!state.hidden.has(group))); draw(); tellList(); },
      }, sample(group), name, element("span", { class: "soft number" }, ` ${points.filter((point) => point.group === group).length}`));
      return button;
    }));
  }
  const search = element("input", { type: "search", placeholder: `Find a ${noun}`, "aria-label": `Find a ${noun}`, oninput: () => { state.query = search.value.toLowerCase(); tellList(); draw(); } });

  document.getElementById("map").replaceChildren(
    legend,
    element("div", { class: "atlas" },
      element("div", { class: "card plane" }, canvas, element("div", { class: "zoom" },
        element("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoom(1.4) }, "+"),
        element("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoom(1 / 1.4) }, "−"),
        element("button", { type: "button", onclick: () => zoom(0) }, "All"))),
      element("div", { class: "stack" }, about, element("div", { class: "card" }, element("h2", {}, data.labels ? "Words" : "Texts"), search, count, list))),
  );
  tellList();
  choose(data.chosen === null ? null : points[data.chosen]);
  onTheme(() => { tellLegend(); draw(); });
  addEventListener("resize", draw);
})();
