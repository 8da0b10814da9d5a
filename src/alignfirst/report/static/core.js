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

const METRIC = Object.fromEntries(DATA.metrics.map((m) => [m.id, m]));
const metricLabel = (id) => METRIC[id].label + (METRIC[id].unit ? ` (${METRIC[id].unit})` : "");
const places = (id) => (METRIC[id].unit ? 2 : 3);
const betaText = (b) => (b < 0 ? "no beta" : `${DATA.betas[b]}`);
const atBeta = (b) => (b < 0 ? "no beta" : `beta ${betaText(b)}`);
const algorithmText = (a) => (a < 0 ? "no alignment" : DATA.algorithms[a]);
const STAGE_WORD = { sft: "sft", align: "aligned", distil: "student" };
const stageText = (kind) => STAGE_WORD[kind] || kind;

function decode(columns, skip = []) {
  const names = Object.keys(columns).filter((n) => !skip.includes(n) && Array.isArray(columns[n]));
  const length = names.length ? columns[names[0]].length : 0;
  return Array.from({ length }, (_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]])));
}

const pooled = (number) => (number < 0 || number === null ? null : DATA.pool[number]);

const CELLS = decode(DATA.cells).map((cell, i) => {
  for (const { id } of DATA.metrics) {
    const m = DATA.cells[id];
    cell[id] = {
      mean: m.mean[i],
      iqm: m.iqm[i],
      sd: m.sd[i],
      low: m.low[i],
      high: m.high[i],
      values: m.values ? pooled(m.values[i]) : null,
    };
  }
  cell.kind = DATA.recipes[cell.r].stages[cell.i];
  return cell;
});
const cellKey = (v, r, a, b, i) => `${v} ${r} ${a} ${b} ${i}`;
const CELL_AT = new Map(CELLS.map((c) => [cellKey(c.v, c.r, c.a, c.b, c.i), c]));
const PAIRS = decode(DATA.pairs, ["notes"]);
const CLAIMS = decode(DATA.claims, ["claims", "notes"]);
const recipeNumber = (name) => DATA.recipes.findIndex((r) => r.name === name);
const AK = recipeNumber("align-distil");
const KA = recipeNumber("distil-align");

// One state for the whole page: choosing an algorithm in one figure chooses it in all.
const state = {
  algorithm: 0,
  beta: 0,
  seed: 0,
  variant: 0,
  metric: "reward",
  scope: "target",
  stage: "final",
  rows: "",
  columns: "",
};
const listeners = [];

function choose(patch) {
  const changed = Object.keys(patch).filter((k) => state[k] !== patch[k]);
  if (!changed.length) return;
  Object.assign(state, patch);
  for (const listen of listeners) listen(changed);
}

// A baseline has no beta, a recipe without alignment no algorithm: their cells stand for every choice of it.
function cellOf(r, i, { a = state.algorithm, b = state.beta, v = state.variant } = {}) {
  for (const [algorithm, beta] of [
    [a, b],
    [a, -1],
    [-1, -1],
  ]) {
    const cell = CELL_AT.get(cellKey(v, r, algorithm, beta, i));
    if (cell) return cell;
  }
  return null;
}

const lastStage = (r) => DATA.recipes[r].stages.length - 1;
const finalOf = (r, where) => cellOf(r, lastStage(r), where);
const hasBeta = (a) => CELLS.some((c) => c.a === a && c.b >= 0);
const recipesWith = (test) => DATA.recipes.map((_, r) => r).filter(test);

function valuesBySeed(cell, metric) {
  const seeds = pooled(cell.seeds) || [];
  const values = cell[metric].values || [];
  return new Map(seeds.map((s, i) => [s, values[i]]));
}

function variantText(v = state.variant) {
  return DATA.study.varied.map((key, k) => `${key} ${DATA.study.variants[v][k]}`).join(", ");
}

// What the current selection is, for captions: a figure must make sense on its own.
function selectionText(keys) {
  const parts = [];
  if (keys.includes("algorithm")) parts.push(algorithmText(state.algorithm));
  if (keys.includes("beta") && DATA.betas.length && hasBeta(state.algorithm))
    parts.push(`beta ${betaText(state.beta)}`);
  if (keys.includes("seed")) parts.push(`seed ${state.seed}`);
  if (keys.includes("variant") && DATA.study.varied.length) parts.push(variantText());
  return parts.join(", ");
}
