// The attention viewer: layers × heads as small maps, one of them as lines or as a matrix, what each head looks at.
"use strict";

const UNITS = { words: "Words", tokens: "Pieces" };
const SHAPES = { lines: "Lines", matrix: "Matrix" };
const MOST_LINES = 700;
const ROW = 27;
const SVG = "http://www.w3.org/2000/svg";

/** A new element of a picture. */
function drawn(name, attributes = {}, ...content) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

const measure = (() => {
  const pen = document.createElement("canvas").getContext("2d");
  return (text, font) => { pen.font = font; return pen.measureText(text).width; };
})();

/** A text that is no wider than `width`; what is cut ends in an ellipsis. */
function fitting(text, width, font) {
  if (measure(text, font) <= width) return text;
  let kept = [...text];
  while (kept.length > 1 && measure(`${kept.join("")}…`, font) > width) kept = kept.slice(0, -1);
  return `${kept.join("")}…`;
}

/** The maps of a text: `map(index, unit)` is an array of rows, of tokens or of words. */
class AttendedText {
  constructor(data) {
    Object.assign(this, data);
    const bytes = Uint8Array.from(atob(data.maps), (letter) => letter.charCodeAt(0));
    this.values = new Uint16Array(bytes.buffer);
    this.size = data.tokens.length;
    this.specialWord = data.words.map((_, word) => data.special[data.word_of.indexOf(word)]);
    this.kept = new Map();
  }

  labels(unit) { return unit === "words" ? this.words : this.tokens; }
  isSpecial(unit) { return unit === "words" ? this.specialWord : this.special; }

  map(index, unit) {
    const key = `${index} ${unit}`;
    if (!this.kept.has(key)) this.kept.set(key, unit === "words" ? this.merged(this.ofTokens(index)) : this.ofTokens(index));
    return this.kept.get(key);
  }

  ofTokens(index) {
    const { size } = this, start = index * size * size;
    return Array.from({ length: size }, (_, row) =>
      Array.from(this.values.subarray(start + row * size, start + (row + 1) * size), (value) => value / 65535));
  }

  /** Attention to a word is the sum over its tokens, attention from a word the mean over them. */
  merged(tokens) {
    const words = this.words.length, count = Array(words).fill(0);
    const result = Array.from({ length: words }, () => Array(words).fill(0));
    tokens.forEach((row, from) => {
      count[this.word_of[from]] += 1;
      row.forEach((share, to) => { result[this.word_of[from]][this.word_of[to]] += share; });
    });
    return result.map((row, word) => row.map((share) => share / count[word]));
  }
}

/** Build the viewer in an element. `data` is what bert/pages/attention.py: page_data gives. */
function mountAttention(place, data) {
  const { layers, heads, roles } = data;
  const texts = data.texts.map((text) => new AttendedText(text));
  const paired = texts.length === 2;
  const MEAN = heads, ROLLOUT = heads + 1, ALL = layers;
  const state = { layer: 0, head: 0, unit: "words", shape: "lines", special: true, cells: "maps", word: null, pinned: false };
  const panels = [];

  const index = (layer, head) => (layer === ALL ? layers * (heads + 2) : layer * (heads + 2) + head);
  const nameOf = (layer, head) =>
    layer === ALL ? "mean of all layers and heads"
      : head === MEAN ? `layer ${layer + 1}, mean of its heads`
        : head === ROLLOUT ? `rollout through ${layer ? `layers 1 to ${layer + 1}` : "layer 1"}`
          : `layer ${layer + 1}, head ${head + 1}`;
  const mapOf = (side, layer = state.layer, head = state.head) => texts[side].map(index(layer, head), state.unit);
  const partners = () => data.pairs[state.unit];
  const partner = (side, word) => {
    const found = partners().find((pair) => pair[side] === word);
    return found ? found[1 - side] : null;
  };

  // ——— what differs between two sentences ———

  /** The words that both sentences have, and by how much the attention from `pair` to each differs. */
  function differences(pair, layer, head) {
    const [first, second] = [0, 1].map((side) => mapOf(side, layer, head)[pair[side]]);
    return partners().map(([a, b, same]) => ({ a, b, same, before: first[a], after: second[b], change: second[b] - first[a] }));
  }
  const shared = (pair) => pair[2] && !texts[0].isSpecial(state.unit)[pair[0]];
  /** How much of the attention from a word that both have goes to other words that both have: half the sum of changes. */
  function moved(pair, layer, head) {
    return sum(differences(pair, layer, head).filter((each) => shared([each.a, each.b, each.same])).map((each) => Math.abs(each.change))) / 2;
  }
  function movedOf(layer, head) {
    const all = partners().filter(shared).map((pair) => moved(pair, layer, head));
    return all.length ? sum(all) / all.length : 0;
  }

  // ——— where to begin ———

  const everyHead = [];
  for (let layer = 0; layer < layers; layer++) for (let head = 0; head < heads; head++) everyHead.push([layer, head]);

  /** How clearly the words of a text look at one other word that is not their neighbour. */
  function reach(layer, head) {
    const special = texts[0].isSpecial(state.unit), map = mapOf(0, layer, head);
    const rows = map.map((row, from) => special[from] ? 0 : Math.max(0, ...row.filter((_, to) => !special[to] && Math.abs(to - from) > 1)));
    return sum(rows) / rows.length;
  }
  function begin() {
    const best = (items, value) => items.reduce((found, item) => (value(item) > value(found) ? item : found), items[0]);
    if (data.start) {
      const { layer, head } = data.start;
      [state.layer, state.head] = [layer === null ? ALL : layer - 1, head === null ? MEAN : head - 1];
    } else if (paired && partners().some(shared)) {
      const scored = everyHead.flatMap(([layer, head]) => partners().filter(shared).map((pair) => [layer, head, pair, moved(pair, layer, head)]));
      const [layer, head, pair] = best(scored, (item) => item[3]);
      Object.assign(state, { layer, head, word: { side: 0, column: "from", word: pair[0] }, pinned: true });
    } else {
      const scored = everyHead.map(([layer, head]) => [layer, head, reach(layer, head)]);
      [state.layer, state.head] = best(scored, (item) => item[2]);
    }
  }
  begin();

  // ——— the overview ———

  const cells = new Map();
  const overview = element("div", { class: "heads", role: "group", "aria-label": "Layers and heads; arrow keys move between them" });
  overview.style.setProperty("--columns", heads + 2);

  function buildOverview() {
    overview.append(element("span", { class: "corner", "aria-hidden": true }, ""));
    for (let head = 0; head < heads + 2; head++) {
      const label = head === MEAN ? "mean" : head === ROLLOUT ? "rollout" : String(head + 1);
      overview.append(element("span", { class: head >= MEAN ? "column extra" : "column", "aria-hidden": true }, label));
    }
    for (let layer = 0; layer < layers; layer++) {
      overview.append(element("span", { class: "row", "aria-hidden": true }, String(layer + 1)));
      for (let head = 0; head < heads + 2; head++) overview.append(cellOf(layer, head));
    }
    overview.append(element("span", { class: "row", "aria-hidden": true }, "all"));
    const all = cellOf(ALL, MEAN);
    all.style.gridColumn = heads + 2;
    overview.append(all);
  }
  function cellOf(layer, head) {
    const canvas = element("canvas", { "aria-hidden": true, width: 1, height: 1 });
    const cell = element("button", {
      type: "button", class: head >= MEAN ? "head extra" : "head", "aria-label": nameOf(layer, head), tabindex: -1,
      onclick: () => choose(layer, head),
      onkeydown: (event) => moveInGrid(event, layer, head),
      onpointerenter: (event) => showTip(cellTip(layer, head), event.clientX, event.clientY),
      onpointerleave: () => showTip(null),
    }, canvas);
    cells.set(index(layer, head), cell);
    return cell;
  }
  function cellTip(layer, head) {
    const name = nameOf(layer, head);
    const lines = [element("strong", {}, name[0].toUpperCase() + name.slice(1))];
    const kind = cellValue(layer, head);
    if (kind !== null) lines.push(element("div", {}, `${kindName(state.cells)}: ${percent(kind)}`));
    return lines;
  }
  function moveInGrid(event, layer, head) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    let [toLayer, toHead] = [layer + step[0], head + step[1]];
    if (toLayer === ALL) toHead = MEAN;
    if (!(toLayer >= 0 && toLayer <= ALL && toHead >= 0 && toHead <= ROLLOUT)) return;
    choose(toLayer, toHead);
    cells.get(index(toLayer, toHead)).focus();
  }
  const kindName = (kind) => (kind === "moved" ? "attention that moved" : roles && kind in roles.names ? `to ${roles.names[kind]}` : "");
  /** What a cell's colour stands for, if it is one number; null if there is none or if cells are maps. */
  function cellValue(layer, head) {
    if (state.cells === "moved") return movedOf(layer, head);
    if (state.cells === "maps" || layer === ALL || head === ROLLOUT) return null;
    return shareOf(state.cells, layer, head);
  }
  function shareOf(role, layer, head) {
    const row = roles.shares[role][layer];
    return head === MEAN ? sum(row) / heads : row[head];
  }
  function paintOverview() {
    const colour = rgb(themed("--series-1")), other = rgb(themed("--series-2"));
    const most = state.cells === "moved" ? Math.max(0.02, ...[...cells.keys()].map((key) => movedOf(...placeOf(key)))) : 1;
    for (const [key, cell] of cells) {
      const [layer, head] = placeOf(key), canvas = cell.firstChild, value = cellValue(layer, head);
      const map = state.cells === "maps" ? mapOf(0, layer, head) : [[value === null ? 0 : value / most]];
      paintMap(canvas, map, state.cells === "moved" ? other : colour);
      cell.classList.toggle("missing", state.cells !== "maps" && value === null);
      const chosen = layer === state.layer && (head === state.head || layer === ALL);
      cell.setAttribute("aria-pressed", chosen);
      cell.tabIndex = chosen ? 0 : -1;
      cell.setAttribute("aria-label", nameOf(layer, head) + (value === null ? "" : `, ${kindName(state.cells)} ${percent(value)}`));
    }
  }
  const placeOf = (key) => (key === layers * (heads + 2) ? [ALL, MEAN] : [Math.floor(key / (heads + 2)), key % (heads + 2)]);
  function rgb(colour) {
    const digits = colour.replace("#", "");
    return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
  }
  function paintMap(canvas, map, [red, green, blue]) {
    const size = map.length;
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d"), image = pen.createImageData(size, size);
    map.forEach((row, y) => row.forEach((share, x) => {
      image.data.set([red, green, blue, Math.round(255 * Math.min(1, share) ** 0.5)], 4 * (y * size + x));
    }));
    pen.putImageData(image, 0, 0);
  }

  // ——— one head ———

  class Panel {
    constructor(side) {
      this.side = side;
      this.text = texts[side];
      this.figure = drawn("svg", { class: "picture", role: "group" });
      this.holder = element("div", { class: "panel" }, this.figure);
      this.width = 0;
    }

    get labels() { return this.text.labels(state.unit); }
    get map() { return mapOf(this.side); }
    shown(word) { return state.special || !this.text.isSpecial(state.unit)[word]; }
    differs(word) { return paired && !partners().some((pair) => pair[this.side] === word && pair[2]); }
    colour() { return themed(this.side ? "--series-2" : "--series-1"); }

    /** The word that is looked at, in this sentence: [column, word], or null. */
    chosen() {
      if (state.word === null) return null;
      const { side, column, word } = state.word;
      const here = side === this.side ? word : partner(side, word);
      return here === null || !this.shown(here) ? null : [column, here];
    }

    draw() {
      this.width = Math.floor(this.holder.clientWidth) || 520;
      this.words = this.labels.map((_, word) => word).filter((word) => this.shown(word));
      this.figure.replaceChildren();
      this.figure.setAttribute("font-family", getComputedStyle(document.body).fontFamily);
      this.figure.setAttribute("aria-label", `Attention of “${this.text.text}”, ${nameOf(state.layer, state.head)}`);
      this.items = { from: new Map(), to: new Map() };
      if (state.shape === "lines") this.drawLines(); else this.drawMatrix();
      this.update();
    }

    size(width, height) {
      for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) this.figure.setAttribute(key, value);
    }

    /** A word that can be hovered, focused and chosen. */
    item(column, word, attributes, ...content) {
      const about = column === "from" ? "attends to" : "is attended to by";
      const made = drawn("g", { class: "word", role: "button", tabindex: -1, ...attributes }, ...content);
      made.setAttribute("aria-label", `${this.labels[word]} ${about}: ${this.best(column, word)}`);
      const look = (pin) => lookAt({ side: this.side, column, word }, pin);
      made.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") look(false); });
      made.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") look(null); });
      made.addEventListener("focus", () => { if (made.matches(":focus-visible")) look(true); });
      made.addEventListener("click", () => look(true));
      made.addEventListener("keydown", (event) => this.step(event, column, word));
      this.items[column].set(word, made);
      return made;
    }
    best(column, word) {
      const shares = this.labels.map((label, other) => [label, column === "from" ? this.map[word][other] : this.map[other][word]]);
      return shares.sort((a, b) => b[1] - a[1]).slice(0, 3).map(([label, share]) => `${label} ${percent(share)}`).join(", ");
    }
    step(event, column, word) {
      if (event.key === "Escape") { state.pinned = false; lookAt(null, true); return; }
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); lookAt({ side: this.side, column, word }, true); return; }
      const across = state.shape === "matrix";
      const [back, on] = column === "to" && across ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
      const at = this.words.indexOf(word) + { [back]: -1, [on]: 1 }[event.key];
      const other = { ArrowLeft: "from", ArrowRight: "to", ArrowDown: "from", ArrowUp: "to" }[event.key];
      if (Number.isNaN(at) && !(other && other !== column)) return;
      event.preventDefault();
      const next = Number.isNaN(at) ? this.items[other].get(word) : this.items[column].get(this.words[at]);
      if (next) next.focus();
    }

    font(word) { return `${this.differs(word) ? 650 : 450} 15px ${getComputedStyle(document.body).fontFamily}`; }
    label(word, width, attributes) {
      const text = this.labels[word], special = this.text.isSpecial(state.unit)[word];
      return drawn("text", {
        "font-size": 15, "font-weight": this.differs(word) ? 650 : 450, "dominant-baseline": "central",
        fill: this.differs(word) ? this.colour() : themed(special ? "--soft" : "--ink"), ...attributes,
      }, fitting(text, width, this.font(word)), drawn("title", {}, text));
    }

    // Lines: the words twice, from the left to the right.

    drawLines() {
      const widest = Math.max(...this.words.map((word) => measure(this.labels[word], this.font(word))));
      const share = 46, column = Math.min(widest + 14, (this.width - 2 * share) * 0.36);
      this.left = share + column;
      this.right = this.width - share - column;
      this.size(this.width, this.words.length * ROW + 30);
      const caption = { "font-size": 12.5, fill: themed("--soft"), y: 12 };
      this.lines = drawn("g", { fill: "none", "pointer-events": "none" });
      this.figure.append(
        drawn("text", { ...caption, x: this.left, "text-anchor": "end" }, "from"),
        drawn("text", { ...caption, x: this.right }, "to"), this.lines,
      );
      this.words.forEach((word, row) => {
        for (const side of ["from", "to"]) {
          const from = side === "from", y = this.y(row), x = from ? share - 4 : this.right - 6;
          const back = drawn("rect", { class: "back", x, y: y - ROW / 2 + 1.5, width: column + 10, height: ROW - 3, rx: 6, fill: "transparent" });
          const text = this.label(word, column - 6, { y, x: from ? this.left - 3 : this.right + 3, "text-anchor": from ? "end" : "start" });
          const number = drawn("text", {
            class: "number", y, x: from ? share - 9 : this.width, "text-anchor": "end", "font-size": 12.5,
            "dominant-baseline": "central", fill: themed("--ink"),
          });
          this.figure.append(this.item(side, word, {}, back, text, number));
        }
      });
    }
    y(row) { return 30 + row * ROW + ROW / 2 - 4; }

    updateLines(chosen) {
      const all = [];
      this.words.forEach((from, row) => this.words.forEach((to, column) => {
        const share = this.map[from][to];
        if (share < 0.005 || (chosen && chosen[1] !== (chosen[0] === "from" ? from : to))) return;
        all.push([share, row, column]);
      }));
      all.sort((a, b) => b[0] - a[0]);
      const some = all.slice(0, MOST_LINES).reverse(), most = Math.max(0.05, ...all.slice(0, 1).map((line) => line[0]));
      const middle = (this.left + this.right) / 2;
      this.lines.replaceChildren(...some.map(([share, row, column]) => {
        const strength = share / most;
        return drawn("path", {
          d: `M${this.left + 8} ${this.y(row)}C${middle} ${this.y(row)} ${middle} ${this.y(column)} ${this.right - 8} ${this.y(column)}`,
          stroke: this.colour(), "stroke-width": (0.8 + 4.2 * strength).toFixed(2), "stroke-linecap": "round",
          "stroke-opacity": Math.max(chosen ? 0.12 : 0.03, (chosen ? 0.95 : 0.85) * strength ** (chosen ? 0.8 : 1.1)).toFixed(3),
        });
      }));
    }

    // Matrix: a row for each word that attends, a column for each that is attended to.

    drawMatrix() {
      const names = this.words.map((word) => measure(this.labels[word], this.font(word)));
      const label = Math.min(Math.max(...names) + 14, this.width * 0.26), slant = label * 0.66;
      this.cell = Math.max(9, Math.min(34, (this.width - label - slant) / this.words.length));
      const letters = Math.min(15, this.cell * 0.8);
      const across = this.cell * this.words.length, top = label * 0.8 + 16;
      this.size(Math.max(this.width, label + across + slant), top + across + 8);
      this.corner = [label, top];
      this.fields = drawn("g");
      this.frame = drawn("rect", { fill: "none", stroke: themed("--ink"), "stroke-width": 1.5, rx: 2, visibility: "hidden", "pointer-events": "none" });
      this.figure.append(drawn("rect", { x: label, y: top, width: across, height: across, fill: themed("--sunken"), rx: 3 }), this.fields);
      this.words.forEach((from, row) => this.words.forEach((to, column) => {
        const share = this.map[from][to];
        const field = drawn("rect", {
          x: label + column * this.cell, y: top + row * this.cell, width: this.cell, height: this.cell,
          fill: this.colour(), "fill-opacity": (share ** 0.7).toFixed(3),
        });
        field.addEventListener("pointermove", (event) =>
          showTip([element("strong", {}, `${this.labels[from]} → ${this.labels[to]}`), ` ${percent(share)}`], event.clientX, event.clientY));
        field.addEventListener("pointerleave", () => showTip(null));
        this.fields.append(field);
      }));
      this.words.forEach((word, row) => {
        const y = top + (row + 0.5) * this.cell, x = label + (row + 0.5) * this.cell;
        const back = (x0, y0, width, height) => drawn("rect", { class: "back", x: x0, y: y0, width, height, rx: 5, fill: "transparent" });
        this.figure.append(
          this.item("from", word, {}, back(0, y - this.cell / 2, label - 3, this.cell),
            this.label(word, label - 12, { x: label - 8, y, "text-anchor": "end", "font-size": letters })),
          this.item("to", word, { transform: `rotate(-50 ${x} ${top - 6})` }, back(x - 4, top - 6 - this.cell / 2, label - 4, this.cell),
            this.label(word, label - 12, { x: x + 2, y: top - 6, "font-size": letters })),
        );
      });
      this.figure.append(this.frame);
    }
    updateMatrix(chosen) {
      this.frame.setAttribute("visibility", chosen ? "visible" : "hidden");
      if (!chosen) return;
      const at = this.words.indexOf(chosen[1]), long = this.cell * this.words.length, [x, y] = this.corner;
      const box = chosen[0] === "from" ? [x, y + at * this.cell, long, this.cell] : [x + at * this.cell, y, this.cell, long];
      ["x", "y", "width", "height"].forEach((key, place) => this.frame.setAttribute(key, box[place]));
    }

    update() {
      const chosen = this.chosen();
      if (state.shape === "lines") this.updateLines(chosen); else this.updateMatrix(chosen);
      let first = true;
      for (const column of ["from", "to"]) for (const [word, item] of this.items[column]) {
        const is = chosen !== null && chosen[0] === column && chosen[1] === word;
        const share = !chosen || chosen[0] === column ? null : column === "to" ? this.map[chosen[1]][word] : this.map[word][chosen[1]];
        item.setAttribute("aria-pressed", is);
        item.setAttribute("tabindex", is || (chosen === null && first) ? 0 : -1);
        item.setAttribute("opacity", state.shape === "lines" && chosen && !is && (share ?? 0) < 0.005 ? 0.6 : 1);
        first = false;
        const back = item.querySelector(".back"), number = item.querySelector(".number");
        const shade = state.shape === "lines" ? share : null;
        back.setAttribute("fill", is ? themed("--accent-soft") : shade === null ? "transparent" : this.colour());
        back.setAttribute("fill-opacity", is ? 1 : shade === null ? 0 : Math.min(0.45, 0.6 * shade).toFixed(3));
        if (number) number.textContent = share === null || share < 0.005 ? "" : percent(share);
      }
    }
  }

  /** Look at a word; `pin` true keeps it when the pointer leaves, null is the pointer leaving. */
  function lookAt(word, pin) {
    const same = word && state.word && ["side", "column", "word"].every((key) => word[key] === state.word[key]);
    if (pin === null) { if (state.pinned) return; state.word = null; }
    else if (pin) { if (word === null || (same && state.pinned && !document.activeElement?.matches?.(":focus-visible"))) { state.word = null; state.pinned = false; } else { state.word = word; state.pinned = true; } }
    else if (state.pinned) return;
    else state.word = word;
    for (const panel of panels) panel.update();
    tellDifferences();
    tellWord();
  }

  // ——— beside the picture ———

  function shareBar(share, side, even) {
    const bar = element("span", { class: even === undefined ? "bar" : "bar even", "aria-hidden": true });
    bar.style.setProperty("--share", share);
    if (even !== undefined) bar.style.setProperty("--even", even);
    return element("span", { class: `share ${side}` }, bar, element("span", { class: "number" }, percent(share)));
  }

  const title = element("h2", { class: "head-name", "aria-live": "polite" });
  const told = element("p", { class: "told soft" });
  const differing = element("div", { class: "differing" });
  const rolesPlace = element("div", {});
  const table = element("div", { class: "scroll" });

  function tellWord() {
    const [panel] = panels, chosen = panel.chosen();
    if (!chosen) {
      told.textContent = "Point at a word, or choose it with the keyboard, to see what it attends to and who attends to it. A click keeps it.";
      return;
    }
    const [column, word] = chosen;
    told.replaceChildren(element("strong", {}, panel.labels[word]), column === "from" ? " attends to: " : " is attended to by: ", panel.best(column, word));
  }

  function tellDifferences() {
    differing.replaceChildren();
    if (!paired) return;
    const chosen = state.word && state.word.column === "from" ? panels[state.word.side].chosen() : null;
    const pair = chosen && partners().find((each) => each[state.word.side] === chosen[1]);
    differing.append(element("h2", {}, pair ? `From “${texts[0].labels(state.unit)[pair[0]]}”, what differs` : "What differs in this head"));
    if (!pair) {
      const most = partners().filter(shared).map((each) => [each, moved(each, state.layer, state.head)]).sort((a, b) => b[1] - a[1]).slice(0, 6);
      differing.append(
        element("p", { class: "soft" }, "Words that both sentences have, and how much of their attention has moved among such words:"),
        element("div", { class: "chips" }, ...most.map(([each, share]) => element("button", {
          type: "button", onclick: () => { state.pinned = false; lookAt({ side: 0, column: "from", word: each[0] }, true); },
        }, texts[0].labels(state.unit)[each[0]], element("span", { class: "soft number" }, ` ${percent(share)}`)))),
      );
      return;
    }
    const found = differences(pair, state.layer, state.head).sort((a, b) => Math.abs(b.change) - Math.abs(a.change)).slice(0, 6);
    const name = (each) => { const [a, b] = [texts[0].labels(state.unit)[each.a], texts[1].labels(state.unit)[each.b]]; return each.same ? a : `${a} / ${b}`; };
    const bar = (share, side) => shareBar(share, `side-${side}`);
    differing.append(element("div", { class: "scroll" }, element("table", { class: "changes" },
      element("thead", {}, element("tr", {}, ...["to", "first", "second", "change"].map((text, at) => element("th", { class: at === 3 ? "right" : null, scope: "col" }, text)))),
      element("tbody", {}, ...found.map((each) => element("tr", {}, element("th", { scope: "row" }, name(each)),
        element("td", {}, bar(each.before, 1)), element("td", {}, bar(each.after, 2)),
        element("td", { class: "right number" }, `${each.change >= 0 ? "+" : "−"}${Math.abs(100 * each.change).toFixed(1)}`)))))));
    const heads = everyHead.map(([layer, head]) => [layer, head, moved(pair, layer, head)]).sort((a, b) => b[2] - a[2]).slice(0, 6);
    differing.append(element("p", { class: "soft heading-of-chips" }, "It changes most in the heads (layer–head):"), chips(heads));
  }
  function chips(found) {
    return element("div", { class: "chips" }, ...found.map(([layer, head, share]) => element("button", {
      type: "button", "aria-label": `${nameOf(layer, head)}, ${percent(share)}`, onclick: () => choose(layer, head),
    }, `${layer + 1}–${head + 1}`, element("span", { class: "soft number" }, ` ${percent(share)}`))));
  }

  function tellRoles() {
    rolesPlace.replaceChildren();
    if (!roles) return;
    const known = state.layer !== ALL && state.head !== ROLLOUT;
    const rows = Object.keys(roles.names).map((role) => {
      const best = everyHead.map(([layer, head]) => [layer, head, roles.shares[role][layer][head]]).sort((a, b) => b[2] - a[2]).slice(0, 3);
      const here = known ? shareOf(role, state.layer, state.head) : null;
      return element("tr", {}, element("th", { scope: "row" }, roles.names[role]),
        element("td", { class: "wide-cell" }, here === null ? "–" : shareBar(here, "side-1", roles.even[role])),
        element("td", { class: "number soft even-cell" }, percent(roles.even[role])), element("td", {}, chips(best)));
    });
    rolesPlace.append(
      element("p", {}, `${roles.source} Shares can overlap: the next token may be a punctuation mark.`),
      element("div", { class: "scroll" }, element("table", { class: "roles" },
        element("thead", {}, element("tr", {}, ...["share of attention to", known ? nameOf(state.layer, state.head) : "this view", "if even", "strongest heads (layer–head)"].map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...rows))),
    );
  }

  function tellTable() {
    const rows = panels.flatMap((panel) => panel.labels.map((label, word) =>
      element("tr", {}, element("th", { scope: "row" }, label), element("td", {}, panel.best("from", word)))));
    table.replaceChildren(element("table", {}, element("caption", {}, `The three that each attends to most, ${nameOf(state.layer, state.head)}`), element("tbody", {}, ...rows)));
  }

  function choose(layer, head) {
    Object.assign(state, { layer, head: layer === ALL ? MEAN : head });
    showTip(null);
    redraw();
  }
  function redraw() {
    const name = nameOf(state.layer, state.head);
    title.textContent = name[0].toUpperCase() + name.slice(1);
    layerSelect.value = state.layer;
    headSelect.value = state.head;
    headSelect.disabled = state.layer === ALL;
    paintOverview();
    for (const panel of panels) panel.draw();
    tellDifferences(); tellWord(); tellRoles(); tellTable();
  }

  // ——— controls ———

  function choice(values, key, label, after) {
    const buttons = Object.entries(values).map(([value, text]) => element("button", {
      type: "button", "aria-pressed": String(state[key] === value),
      onclick: () => {
        state[key] = value;
        if (key === "unit") { state.word = null; state.pinned = false; }
        buttons.forEach((button, at) => button.setAttribute("aria-pressed", Object.keys(values)[at] === value));
        after();
      },
    }, text));
    return element("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
  }
  function select(label, options, value, change) {
    const box = element("select", { onchange: () => change(box.value) }, ...options.map(([key, text]) => element("option", { value: key }, text)));
    box.value = value;
    return [element("label", {}, label, box), box];
  }
  const numbered = (count) => Array.from({ length: count }, (_, at) => [at, String(at + 1)]);
  const [layerLabel, layerSelect] = select("Layer", [...numbered(layers), [ALL, "all, mean"]], state.layer, (value) => choose(Number(value), state.layer === ALL ? MEAN : state.head));
  const [headLabel, headSelect] = select("Head", [...numbered(heads), [MEAN, "mean"], [ROLLOUT, "rollout"]], state.head, (value) => choose(state.layer, Number(value)));
  const kinds = [["maps", "its map"], ...(paired ? [["moved", "how much the sentences differ"]] : []), ...Object.entries(roles?.names ?? {}).map(([role, name]) => [role, `share to ${name}`])];
  const [cellLabel] = select("Each square shows", kinds, "maps", (value) => { state.cells = value; paintOverview(); });
  const special = element("input", { type: "checkbox", onchange: () => { state.special = special.checked; for (const panel of panels) panel.draw(); } });
  special.checked = true;

  // ——— export ———

  /** All panels as one picture, with a title. */
  function picture() {
    const font = getComputedStyle(document.body).fontFamily;
    const parts = panels.map((panel) => ({ panel, width: Number(panel.figure.getAttribute("width")), height: Number(panel.figure.getAttribute("height")) }));
    const margin = 20, top = 48 + 22, beside = sum(parts.map((part) => part.width + margin)) + margin < 1300;
    const width = beside ? sum(parts.map((part) => part.width + margin)) + margin : Math.max(...parts.map((part) => part.width)) + 2 * margin;
    const height = (beside ? Math.max(...parts.map((part) => part.height)) + 22 : sum(parts.map((part) => part.height + 40))) + top;
    const whole = drawn("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, "font-family": font },
      drawn("rect", { width, height, fill: themed("--card") }),
      drawn("text", { x: margin, y: 32, "font-size": 18, "font-weight": 650, fill: themed("--ink") }, `${data.model}: ${nameOf(state.layer, state.head)}`));
    let [x, y] = [margin, top];
    for (const { panel, width: wide, height: high } of parts) {
      const copy = panel.figure.cloneNode(true);
      copy.setAttribute("x", x);
      copy.setAttribute("y", y);
      const line = `400 13px ${font}`;
      whole.append(drawn("text", { x, y: y - 12, "font-size": 13, fill: themed("--soft") }, fitting(panel.text.text, beside ? wide : width - 2 * margin, line)), copy);
      if (beside) x += wide + margin; else y += high + 40;
    }
    return new XMLSerializer().serializeToString(whole);
  }
  function download(url, suffix) {
    const name = nameOf(state.layer, state.head).replace(/\W+/g, "-");
    element("a", { href: url, download: `attention-${name}.${suffix}` }).click();
  }
  const dataUrl = (text) => `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  function exportPng() {
    const image = new Image(), scale = 2;
    image.onload = () => {
      const canvas = element("canvas", { width: image.width * scale, height: image.height * scale });
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.drawImage(image, 0, 0);
      download(canvas.toDataURL("image/png"), "png");
    };
    image.src = dataUrl(picture());
  }

  // ——— the whole ———

  buildOverview();
  for (let side = 0; side < texts.length; side++) panels.push(new Panel(side));
  const captioned = panels.map((panel) => element("figure", { class: `side side-${panel.side + 1}` },
    element("figcaption", {}, panel.text.text, panel.text.num_cut ? element("span", { class: "badge warn" }, `its last ${panel.text.num_cut} tokens were cut off`) : ""), panel.holder));
  place.replaceChildren(
    element("div", { class: "card controls-card" }, element("div", { class: "controls" }, layerLabel, headLabel,
      choice(UNITS, "unit", "Words or pieces of words", redraw), choice(SHAPES, "shape", "Lines or matrix", redraw),
      element("label", {}, special, "special tokens"),
      element("span", { class: "exports" }, element("button", { type: "button", onclick: () => download(dataUrl(picture()), "svg") }, "Save SVG"), element("button", { type: "button", onclick: exportPng }, "Save PNG")))),
    element("div", { class: paired ? "viewer paired" : "viewer" },
      element("section", { class: "card one", "aria-label": "One head" }, title, told, element("div", { class: "sides" }, ...captioned)),
      element("section", { class: "card overview", "aria-labelledby": "overview-title" },
        element("h2", { id: "overview-title" }, "Layers and heads"),
        element("div", { class: "controls" }, cellLabel),
        element("p", { class: "axis soft", "aria-hidden": true }, "head →"), overview,
        element("p", { class: "soft legend" },
          `In a small map${paired ? ", which is that of the first sentence," : ""} row is the word that attends, column the word it attends to; darker is more. `,
          "Mean: of the layer’s heads. Rollout: through this layer and those below it, to the input, half of each layer counted as the residual connection (Abnar and Zuidema 2020).")),
      paired ? element("section", { class: "card differing-card" }, differing) : "",
      roles ? element("section", { class: "card roles-card" }, element("h2", {}, "What heads look at"), rolesPlace) : ""),
    element("details", { class: "card" }, element("summary", {}, "This view as text"), table),
  );
  onTheme(redraw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; for (const panel of panels) panel.draw(); } });
}
