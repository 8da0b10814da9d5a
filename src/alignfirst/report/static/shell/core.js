// The payload decoded, the shared state, and the words for numbers.

const DATA = JSON.parse(document.getElementById("payload").textContent);
const MINUS = "\u2212";

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map((c) => (c.nodeType ? c : String(c))));
  return node;
}

// Plotly reads a little HTML in its labels; text of a study must stay text there too.
const esc = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// A name on an axis or in a legend: as long as there is room for; on hover and in tables it is whole.
const short = (text, most = 24) => esc(text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);

// A label on hover: every part of it is text.
const hover = (title, ...lines) => [`<b>${esc(title)}</b>`, ...lines.filter(Boolean).map(esc)].join("<br>");

function fixed(value, places = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "\u2013";
  const text = Math.abs(value).toFixed(places);
  return (value < 0 && Number(text) !== 0 ? MINUS : "") + text;
}

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

function signed(value, places = 3) {
  const text = fixed(value, places);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

function big(value, unit = "") {
  if (value === null || value === undefined) return "\u2013";
  const powers = [
    [1e15, "P"],
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  const [scale, prefix] = powers.find(([s]) => Math.abs(value) >= s) || [1, ""];
  const short = value / scale;
  return `${short >= 100 ? short.toFixed(0) : short >= 10 ? short.toFixed(1) : short.toFixed(2)} ${prefix}${unit}`;
}

function decode(columns, skip = []) {
  const names = Object.keys(columns).filter((n) => !skip.includes(n) && Array.isArray(columns[n]));
  const length = names.length ? columns[names[0]].length : 0;
  return Array.from({ length }, (_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]])));
}

// One state for the whole page: choosing an algorithm in one figure chooses it in all.
const state = {};
const listeners = [];

function choose(patch) {
  const changed = Object.keys(patch).filter((k) => state[k] !== patch[k]);
  if (!changed.length) return;
  Object.assign(state, patch);
  for (const listen of listeners) listen(changed);
}
