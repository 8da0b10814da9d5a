// Precision against recall: the path of each recipe through its stages.

const scopeMetrics = () => [`${state.scope}_recall`, `${state.scope}_precision`];

// Axes hold still while beta moves: they span every cell of the chosen algorithm and variant.
function planeAxes() {
  const cells = CELLS.filter((c) => c.v === state.variant && (c.a === state.algorithm || c.a === -1));
  const span = (m) => cells.flatMap((c) => [c[m].mean, ...(c[m].values || [])]);
  const [x, y] = scopeMetrics();
  return [
    natsAxis(span(x), `${METRIC[x].label}, nats (right: covers more)`),
    natsAxis(span(y), `${METRIC[y].label}, nats (up: purer)`),
  ];
}

function planePaths(r) {
  const cells = DATA.recipes[r].stages.map((_, i) => cellOf(r, i)).filter((c) => c && c.n);
  const [mx, my] = scopeMetrics();
  const seeds = new Map();
  for (const cell of cells) {
    const xs = valuesBySeed(cell, mx),
      ys = valuesBySeed(cell, my);
    for (const [seed, x] of xs) {
      if (!seeds.has(seed)) seeds.set(seed, []);
      seeds.get(seed).push([x, ys.get(seed)]);
    }
  }
  return { cells, seeds };
}

function planeTraces(r, ax, ay) {
  const { color, dash, symbol, name } = look(r);
  const { cells, seeds } = planePaths(r);
  const [mx, my] = scopeMetrics();
  const faint = { x: [], y: [] };
  for (const path of seeds.values()) {
    faint.x.push(...path.map(([x]) => ax.map(x)), null);
    faint.y.push(...path.map(([, y]) => ay.map(y)), null);
  }
  const thin = {
    ...faint,
    type: "scatter",
    mode: "lines",
    line: { color: fade(color, isDark() ? 0.28 : 0.22), width: 1 },
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: name,
  };
  const sizes = cells.map((c, i) => (i === cells.length - 1 ? 13 : 8));
  const mean = {
    type: "scatter",
    mode: "lines+markers",
    name: short(name),
    legendgroup: name,
    x: cells.map((c) => ax.map(c[mx].mean)),
    y: cells.map((c) => ay.map(c[my].mean)),
    line: { color, width: 2.75, dash },
    marker: {
      color: cells.map((c, i) => (i === cells.length - 1 ? color : css("--surface"))),
      symbol,
      size: sizes,
      opacity: 1,
      line: { color, width: 2 },
    },
    hoverinfo: "text",
    hovertext: cells.map((c) =>
      hover(
        `${name}, ${stageText(c.kind)}`,
        ...[mx, my, "target_mass"].map((m) => `${METRIC[m].label} ${fixed(c[m].mean, places(m))}`),
        `${c.n} seeds`,
      ),
    ),
  };
  return [thin, mean];
}

FIGURES.plane = {
  plotly: true,
  deps: ["algorithm", "beta", "variant", "scope"],
  controls: () => [
    algorithmControl(),
    betaControl(),
    segmented("measured on", "scope", [
      ["target", "target"],
      ["overall", "overall"],
    ]),
    ...variantControls(),
  ],
  empty: () => (CELLS.some((c) => c.n) ? null : "No cell of this run has a result."),
  draw(element, width) {
    const [ax, ay] = planeAxes();
    const traces = DATA.recipes.flatMap((_, r) => planeTraces(r, ax, ay));
    const sft = cellOf(0, 0);
    const [mx, my] = scopeMetrics();
    const start =
      sft && sft.n
        ? [
            {
              x: ax.map(sft[mx].mean),
              y: ay.map(sft[my].mean),
              text: "sft",
              showarrow: false,
              xshift: -8,
              yshift: -16,
              font: { color: css("--muted"), size: 12.5 },
            },
          ]
        : [];
    plotly(element, traces, { height: width < 560 ? 420 : 500, xaxis: ax.axis, yaxis: ay.axis, annotations: start });
  },
  caption() {
    const [ax, ay] = planeAxes();
    const squeezed = ax.compressed || ay.compressed ? " Low values are compressed; tick labels give the nats." : "";
    return (
      `${selectionText(["algorithm", "beta", "variant"])}. Hollow marks are stages on the way, the filled mark is where ` +
      `the recipe ends. Faint lines are single seeds, the bold line is their mean.${squeezed}`
    );
  },
  table() {
    const names = ["target_precision", "target_recall", "overall_precision", "overall_recall", "target_mass", "reward"];
    return {
      columns: ["recipe", "stage", "seeds", ...names.map(metricLabel)],
      rows: DATA.recipes.flatMap((recipe, r) =>
        recipe.stages.map((kind, i) => {
          const cell = cellOf(r, i);
          return [recipe.name, stageText(kind), cell ? cell.n : 0, ...names.map((m) => (cell ? cell[m].mean : null))];
        }),
      ),
    };
  },
};
