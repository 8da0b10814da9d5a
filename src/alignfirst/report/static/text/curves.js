// Training curves of the chosen kind of stage: every recipe on top of the others, the chosen seed bold.

const CURVES = EXHIBIT.curve_words || {}; // the curves that have words, in their order
const SPARSE = 14; // a curve of fewer points shows each of them

const stageKinds = ["align", "distil", "sft"].filter((kind) => DATA.recipes.some((r) => r.stages.includes(kind)));
Object.assign(state, { trained: stageKinds[0] || "align" });

// Every stage of the chosen kind, recipe by recipe; sft is the same in all of them, so once.
function trainedStages() {
  const found = DATA.recipes.flatMap(({ stages }, r) => {
    const at = stages.flatMap((kind, i) => (kind === state.trained ? [i] : []));
    return at.map((i, n) => ({ r, i, again: n > 0 }));
  });
  return state.trained === "sft" ? found.slice(0, 1) : found;
}

function curvesOf({ r, i }, seed) {
  const model = modelOf(cellOf(r, i), seed);
  return model ? model.curves : null;
}

const curveSeeds = () => EXHIBIT.seeds || [];

// Names of the curves that some stage of this kind has, the known ones first, whatever is chosen otherwise.
function curveNames() {
  const present = new Set();
  for (const cell of CELLS.filter((c) => c.kind === state.trained))
    for (const at of Object.values(pooled(cell.models) || {}))
      for (const name of Object.keys(EXHIBIT.models[at].curves || {})) present.add(name);
  present.delete("update");
  const known = Object.keys(CURVES).filter((n) => present.delete(n));
  return [...known, ...present].slice(0, 12);
}

const curveTitle = (name) => (Object.hasOwn(CURVES, name) ? CURVES[name] : name);
const points = (curves, name) =>
  curves && curves[name] ? curves[name].flatMap((v, k) => (v === null ? [] : [k])) : [];

function trainedLook({ r, again }) {
  const { color, name, symbol } = look(r);
  if (state.trained === "sft") return { color: css("--muted"), name: "sft", symbol: "circle", dash: "solid" };
  return { color, name: name + (again ? ", second align" : ""), symbol, dash: again ? "dot" : "solid" };
}

function faintCurves(stage, name, suffix, look) {
  const x = [];
  const y = [];
  for (const seed of curveSeeds().filter((s) => s !== state.seed)) {
    const curves = curvesOf(stage, seed);
    for (const k of points(curves, name)) {
      x.push(curves.update[k]);
      y.push(curves[name][k]);
    }
    x.push(null);
    y.push(null);
  }
  return {
    type: "scatter",
    mode: "lines",
    x,
    y,
    xaxis: `x${suffix}`,
    yaxis: `y${suffix}`,
    line: { color: fade(look.color, isDark() ? 0.34 : 0.26), width: 1, dash: look.dash },
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: look.name,
  };
}

function boldCurve(stage, name, suffix, look, showlegend) {
  const curves = curvesOf(stage, state.seed);
  const at = points(curves, name);
  return {
    type: "scatter",
    mode: at.length <= SPARSE ? "lines+markers" : "lines",
    name: short(look.name, 40),
    legendgroup: look.name,
    showlegend,
    x: at.map((k) => curves.update[k]),
    y: at.map((k) => curves[name][k]),
    xaxis: `x${suffix}`,
    yaxis: `y${suffix}`,
    line: { color: look.color, width: 2.25, dash: look.dash },
    marker: { color: look.color, size: 5, symbol: look.symbol },
    hoverinfo: "text",
    hovertext: at.map((k) =>
      hover(
        `${look.name}, seed ${state.seed}`,
        `update ${curves.update[k]}`,
        `${curveTitle(name)} ${fixed(curves[name][k])}`,
      ),
    ),
  };
}

function drawsText() {
  const said = trainedStages().flatMap((stage) => {
    const cell = cellOf(stage.r, stage.i);
    if (!cell || cell.target_draws === null || cell.target_draws === undefined) return [];
    const of = cell.samples ? ` of ${grouped(Math.round(cell.samples))}` : "";
    return [`${trainedLook(stage).name} ${grouped(Math.round(cell.target_draws))}${of}`];
  });
  return said.length ? ` Draws of the target seen in training, mean over seeds: ${said.join("; ")}.` : "";
}

FIGURES.curves = {
  plotly: true,
  deps: ["algorithm", "beta", "seed", "variant", "trained"],
  controls: () => [
    algorithmControl(),
    betaControl(),
    seedControl(curveSeeds()),
    stageKinds.length > 1
      ? segmented(
          "training of",
          "trained",
          stageKinds.map((kind) => [kind, kind]),
        )
      : null,
    ...variantControls(),
  ],
  empty: () =>
    trainedStages().some((s) => curveSeeds().some((seed) => curvesOf(s, seed)))
      ? null
      : "No curve was kept for this choice.",
  draw(element, width) {
    const names = curveNames();
    const stages = trainedStages();
    const grid = panelGrid(width, names.length);
    const traces = names.flatMap((name, k) => {
      const suffix = k ? String(k + 1) : "";
      const looks = stages.map(trainedLook);
      return [
        ...stages.map((s, j) => faintCurves(s, name, suffix, looks[j])),
        ...stages.map((s, j) => boldCurve(s, name, suffix, looks[j], k === 0)),
      ];
    });
    const unit = (name) => (name === "target_share" ? { rangemode: "tozero" } : {});
    const panels = names.map((name) => ({
      title: curveTitle(name),
      xaxis: { rangemode: "tozero", nticks: 6 },
      yaxis: unit(name),
    }));
    plotly(element, traces, { ...gridLayout(grid, panels), legend: gridLegend(grid) });
  },
  caption: () =>
    `${selectionText(state.trained === "align" ? ["algorithm", "beta", "seed", "variant"] : ["seed", "variant"])}, over updates ` +
    `of the ${state.trained} stage. Bold: the chosen seed. Faint: the other seeds.` +
    (state.trained === "align" ? drawsText() : ""),
  table() {
    const names = curveNames();
    return {
      columns: ["recipe", "stage", "seed", "update", ...names.map(curveTitle)],
      rows: trainedStages().flatMap((stage) => {
        const curves = curvesOf(stage, state.seed);
        const value = (name, k) => (curves[name] ? curves[name][k] : null);
        return (curves ? curves.update : []).map((u, k) => [
          trainedLook(stage).name,
          state.trained,
          state.seed,
          u,
          ...names.map((n) => value(n, k)),
        ]);
      }),
    };
  },
};
