// A study decoded: its cells, pairs and claims, and its words for stages, measures and choices.

const METRIC = Object.fromEntries(DATA.metrics.map((m) => [m.id, m]));
const TEXT_MEASURES = DATA.text_measures || []; // of text alone: { id, column, path, label, unit }
const metricLabel = (id) => METRIC[id].label + (METRIC[id].unit ? ` (${METRIC[id].unit})` : "");
const places = (id) => (METRIC[id].unit ? 2 : 3);
const betaText = (b) => (b < 0 ? "no beta" : `${DATA.betas[b]}`);
const atBeta = (b) => (b < 0 ? "no beta" : `beta ${betaText(b)}`);
const algorithmText = (a) => (a < 0 ? "no alignment" : DATA.algorithms[a]);
const stageText = (kind) => DATA.words.stages[kind] || kind;

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
  for (const { id } of TEXT_MEASURES) {
    const m = DATA.cells[id];
    cell[id] = { mean: m.mean[i], values: pooled(m.values[i]) };
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

// What a world shows of its models, those of the first seeds.
const EXHIBIT = DATA.exhibits;
const EXHIBIT_KINDS = {}; // name -> the figure that draws such exhibits

function modelOf(cell, seed = state.seed) {
  const models = cell ? pooled(cell.models) : null;
  const at = models ? models[String(seed)] : undefined;
  return at === undefined ? null : EXHIBIT.models[at];
}

function seedMeasure(cell, metric) {
  const value = cell ? valuesBySeed(cell, metric).get(state.seed) : undefined;
  return value === undefined ? null : value;
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

Object.assign(state, {
  algorithm: 0,
  beta: 0,
  seed: 0,
  variant: 0,
  metric: "reward",
  scope: "target",
  stage: "final",
  rows: "",
  columns: "",
});
