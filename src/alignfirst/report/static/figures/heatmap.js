// Where order matters: align-distil minus distil-align over any two axes of the study.

const AXIS_KEYS = ["algorithm", "beta", ...DATA.study.varied];

const axisValues = (key) => {
  if (key === "algorithm") return DATA.algorithms.map((_, i) => i);
  if (key === "beta")
    return [...DATA.betas.map((_, i) => i), ...(DATA.algorithms.some((_, a) => !hasBeta(a)) ? [-1] : [])];
  const k = DATA.study.varied.indexOf(key);
  return [...new Set(DATA.study.variants.map((v) => v[k]))];
};

function axisText(key, value) {
  if (key === "algorithm") return algorithmText(value);
  if (key === "beta") return betaText(value);
  return String(value);
}

function axisOf(pair, key) {
  if (key === "algorithm") return pair.a;
  if (key === "beta") return pair.b;
  return DATA.study.variants[pair.v][DATA.study.varied.indexOf(key)];
}

function defaultAxes() {
  const varied = DATA.study.varied.filter((k) => axisValues(k).length > 1);
  if (varied.length > 1) return [varied[1], varied[0]];
  if (varied.length === 1) return [DATA.betas.length > 1 ? "beta" : "algorithm", varied[0]];
  return ["algorithm", "beta"];
}
[state.rows, state.columns] = defaultAxes();

// The chosen value of every axis that the map does not spread out.
function heatPairs() {
  const metric = DATA.metrics.findIndex((m) => m.id === state.metric);
  const spread = [state.rows, state.columns];
  const fixedTo = (pair, key) => {
    if (spread.includes(key)) return true;
    if (key === "algorithm") return pair.a === state.algorithm;
    if (key === "beta") return pair.b === state.beta || pair.b === -1;
    const k = DATA.study.varied.indexOf(key);
    return DATA.study.variants[pair.v][k] === DATA.study.variants[state.variant][k];
  };
  return PAIRS.filter((p) => p.m === metric && p.r === AK && AXIS_KEYS.every((key) => fixedTo(p, key)));
}

// Colour says which order is ahead: for a spread that is the lower one.
const merit = () => (state.metric === "reward_sd" ? -1 : 1);
const excludesZero = (p) => p.low !== null && (p.low > 0 || p.high < 0);

function heatGrid() {
  const xs = axisValues(state.columns),
    pairs = heatPairs();
  const ys = axisValues(state.rows).filter((y) => pairs.some((p) => axisOf(p, state.rows) === y));
  const at = (y, x) => pairs.find((p) => axisOf(p, state.rows) === y && axisOf(p, state.columns) === x) || null;
  return { xs, ys, cells: ys.map((y) => xs.map((x) => at(y, x))) };
}

const heatLost = (p) =>
  [AK, KA].reduce((n, r) => n + (finalOf(r, { a: p.a, b: p.b, v: p.v }) || { failed: 0 }).failed, 0);

function heatLabel(p, width, columns) {
  if (!p) return "";
  if (p.mean === null) return heatLost(p) ? `${heatLost(p)} failed` : "n/a";
  const tight = (width - 90) / columns < 74;
  const digits = METRIC[state.metric].unit ? 1 : tight ? 2 : 3;
  const text = signed(p.mean, digits).replace(/^([+\u2212])0\./, "$1.");
  return excludesZero(p) ? `<b>${text}</b>${tight ? "<br>" : " "}\u25cf` : text;
}

// Text on a cell: whichever of ink and paper stands out more from the cell's colour.
function heatInk(p, top) {
  const share = Math.min(1, Math.abs(p.mean) / top);
  const [from, to] = [css("--neutral"), css(p.mean * merit() < 0 ? "--distil-align" : "--align-distil")].map(rgb);
  const cell = from.map((x, i) => x + share * (to[i] - x));
  const [ink, paper] = [css("--ink"), css("--surface")];
  return contrast(cell, rgb(ink)) >= contrast(cell, rgb(paper)) ? ink : paper;
}

function contrast(one, other) {
  const light = (c) =>
    c
      .map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
      .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0.05);
  const [a, b] = [light(one), light(other)];
  return Math.max(a, b) / Math.min(a, b);
}

function heatHover(p) {
  if (!p) return "not part of the study";
  const where = [algorithmText(p.a), p.b >= 0 ? `beta ${betaText(p.b)}` : "no beta", variantText(p.v)]
    .filter(Boolean)
    .join(", ");
  const range = p.low === null ? "no interval" : `[${signed(p.low)}, ${signed(p.high)}]`;
  const won = p.share_won === null ? "" : `${Math.round(100 * p.share_won)} % of ${p.n} seeds won`;
  const note = p.note >= 0 ? DATA.pairs.notes[p.note] : "";
  return hover(where, `${METRIC[state.metric].label}: ${signed(p.mean)} ${range}`, won, note);
}

const axisControl = (key) =>
  key === "algorithm" ? algorithmControl() : key === "beta" ? betaControl() : variantControls([key])[0];

FIGURES.heatmap = {
  plotly: true,
  deps: ["metric", "rows", "columns", "algorithm", "beta", "variant"],
  controls() {
    const free = () => AXIS_KEYS.filter((k) => axisValues(k).length > 1);
    const both =
      free().length > 2
        ? ["rows", "columns"].map((key) =>
            selectControl(
              key,
              key,
              free().map((k) => [k, k]),
              { number: false },
            ),
          )
        : [];
    const others = DATA.study.varied.length
      ? AXIS_KEYS.map((key) => [key, axisControl(key)]).filter(([, node]) => node)
      : [];
    for (const [key, node] of others)
      follow(["rows", "columns"], () => (node.hidden = [state.rows, state.columns].includes(key)));
    return [metricControl(), ...both, ...others.map(([, node]) => node)];
  },
  empty: () => {
    if (AK < 0 || KA < 0)
      return "This run does not hold both align-distil and distil-align, so there is no difference to show.";
    if (state.rows === state.columns) return "Choose two different axes.";
    return heatPairs().length ? null : "No pair of this choice has been run.";
  },
  draw(element, width) {
    const { xs, ys, cells } = heatGrid();
    const known = cells
      .flat()
      .filter((p) => p && p.mean !== null)
      .map((p) => Math.abs(p.mean));
    const top = Math.max(...known, 1e-9);
    const trace = {
      type: "heatmap",
      x: xs.map((_, i) => i),
      y: ys.map((_, i) => i),
      xgap: 2,
      ygap: 2,
      zmin: -top,
      zmax: top,
      z: cells.map((row) => row.map((p) => (p && p.mean !== null ? p.mean * merit() : null))),
      hoverinfo: "text",
      hovertext: cells.map((row) => row.map(heatHover)),
      hoverongaps: false,
      colorscale: [
        [0, css("--distil-align")],
        [0.5, css("--neutral")],
        [1, css("--align-distil")],
      ],
      colorbar: {
        tickformat: "~g",
        thickness: 10,
        outlinewidth: 0,
        tickfont: { size: 11, color: css("--muted") },
        ticks: "",
        len: 0.9,
      },
      showscale: width >= 560,
    };
    const label = (p, i, j) => ({
      x: i,
      y: j,
      text: heatLabel(p, width, xs.length),
      showarrow: false,
      captureevents: false,
      font: { size: width < 560 ? 9.5 : 12.5, color: p.mean === null ? css("--bad") : heatInk(p, top) },
    });
    const labels = cells.flatMap((row, j) => row.flatMap((p, i) => (p ? [label(p, i, j)] : [])));
    plotly(element, [trace], {
      height: Math.max(240, 90 + ys.length * 44),
      showlegend: false,
      annotations: labels,
      xaxis: axis(short(state.columns, 40), {
        tickvals: xs.map((_, i) => i),
        ticktext: xs.map((x) => (x === -1 && width < 560 ? "none" : short(axisText(state.columns, x), 14))),
        showgrid: false,
        zeroline: false,
        showline: false,
        tickangle: width < 560 && xs.length < 10 ? 0 : "auto",
        tickfont: { size: width < 560 ? 10.5 : 12, color: css("--muted") },
      }),
      yaxis: axis(state.rows === "algorithm" ? "" : short(state.rows), {
        tickvals: ys.map((_, i) => i),
        ticktext: ys.map((y) => short(axisText(state.rows, y), width < 560 ? 13 : 24) + "\u2002"),
        autorange: "reversed",
        showgrid: false,
        zeroline: false,
        showline: false,
      }),
    });
  },
  caption() {
    const rest = ["algorithm", "beta"].filter((k) => ![state.rows, state.columns].includes(k));
    const where = selectionText(rest);
    const [first, second] = ["align-distil", "distil-align"].map((name) => capital(DATA.words.colours[name]));
    const better = `${first}: aligning first is ahead${merit() < 0 ? " (varies less)" : ""}. ${second}: distilling first is.`;
    const what = `Difference in ${metricLabel(state.metric)}, align-distil minus distil-align at the last stage`;
    return `${what}, paired by seed${where ? ` (${where})` : ""}. ${better} Bold with a dot: the ${DATA.words.level} interval excludes 0.`;
  },
  table: () => ({
    columns: ["algorithm", "beta", ...DATA.study.varied, "difference", "low", "high", "share won", "n", "note"],
    rows: heatPairs().map((p) => [
      algorithmText(p.a),
      betaText(p.b),
      ...DATA.study.variants[p.v],
      p.mean,
      p.low,
      p.high,
      p.share_won,
      p.n,
      p.note >= 0 ? DATA.pairs.notes[p.note] : "",
    ]),
  }),
};
