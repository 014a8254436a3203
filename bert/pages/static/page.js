// What every page has: its data, light or dark, the colours of series, and the tip beside the pointer.
"use strict";

const root = document.documentElement;

/** The data that the page was made with. */
function pageData() {
  return JSON.parse(document.getElementById("data").textContent);
}

/** The value of a custom property of page.css, such as --ink or --series-1, as it is in this theme. */
function themed(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

/** Call `draw` now, and again whenever the theme changes: canvases do not follow a style sheet. */
function onTheme(draw) {
  document.addEventListener("theme", draw);
  draw();
}

function showTheme(theme) {
  root.dataset.theme = theme;
  document.dispatchEvent(new Event("theme"));
}

(function followTheme() {
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* pages from a file may have no storage */ }
  root.dataset.theme = chosen ?? (prefersDark.matches ? "dark" : "light");
  prefersDark.addEventListener("change", (event) => {
    if (chosen === null) showTheme(event.matches ? "dark" : "light");
  });
  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", chosen); } catch { /* as above */ }
    showTheme(chosen);
  });
})();

/** Mark the link to the section that is being read. */
(function followSections() {
  const links = new Map([...document.querySelectorAll("nav.sections a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));
})();

/** A new element; text is set as text, so nothing in it is read as HTML. */
function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...content);
  return made;
}

/** Show the tip at a place of the window, within its borders; without content it is hidden. */
function showTip(content, x, y) {
  const tip = document.getElementById("tip");
  tip.hidden = content === null;
  if (content === null) return;
  tip.replaceChildren(...[content].flat());
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 10) : y + 18}px`;
}
