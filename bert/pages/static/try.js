// The page of `bert try`: forms that ask the model, and what it answers.
"use strict";

(function mountTrials() {
  const { trials } = pageData();

  const shareRow = (name, share, strong) => element("li", {},
    element("span", { class: strong ? "name strong" : "name" }, name || "(space)"),
    (() => { const bar = element("span", { class: "bar", "aria-hidden": true }); bar.style.setProperty("--share", share); return bar; })(),
    element("span", { class: "number" }, `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)} %`));
  const shares = (rows) => element("ol", { class: "answers" }, ...rows.map(([name, share], at) => shareRow(name, share, at === 0)));

  const shown = {
    fill({ text, masks }, { mask }) {
      const pieces = text.split(mask), line = element("p", { class: "filled" });
      pieces.forEach((piece, at) => {
        line.append(piece);
        if (at < masks.length) line.append(element("mark", {}, masks[at][0][0]));
      });
      const lists = masks.map((rows, at) => element("div", {}, masks.length > 1 ? element("h3", {}, `Mask ${at + 1}`) : "", shares(rows)));
      return [line, element("div", { class: masks.length > 1 ? "grid narrow" : "" }, ...lists)];
    },
    pair: (answer) => [shares(answer.shares)],
    classify: (answer) => answer.number === null ? [shares(answer.shares)] : [element("p", { class: "filled" }, String(answer.number))],
    tag(answer) {
      const line = element("p", { class: "tagged" });
      for (const [text, label] of answer.parts) line.append(label === null ? text : element("mark", {}, text, element("span", { class: "tag" }, label)));
      return [line];
    },
    attention(answer) {
      const viewer = element("div", {});
      queueMicrotask(() => mountAttention(viewer, answer.attention));
      return [...answer.notes.map((note) => element("p", { class: "note warn" }, note)), viewer];
    },
  };

  for (const name of trials) {
    const form = document.getElementById(`form-${name}`), place = document.getElementById(`answer-${name}`);
    const button = form.querySelector("button[type=submit]");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      place.setAttribute("aria-busy", "true");
      try {
        const response = await fetch(`/api/${name}`, {
          method: "POST", headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ text: form.elements.text.value, second: form.elements.second?.value ?? "" }),
        });
        const answer = await response.json();
        place.replaceChildren(...(response.ok ? shown[name](answer, pageData()) : [element("p", { class: "note bad" }, answer.error)]));
      } catch {
        place.replaceChildren(element("p", { class: "note bad" }, "The model does not answer: bert try was ended. Start it again."));
      }
      button.disabled = false;
      place.removeAttribute("aria-busy");
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
})();
