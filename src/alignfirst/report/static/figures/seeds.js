// Every seed as a dot, so that a mean over two kinds of outcome cannot pass for one kind.

const SPREAD = 0.78; // share of a beta's place that its strips take

const stageOf = (r) => (state.stage === "final" ? lastStage(r) : DATA.recipes[r].stages.lastIndexOf("align"));
const stripRecipes = () => recipesWith((r) => stageOf(r) >= 0);
const stripBetas = () => (hasBeta(state.algorithm) && DATA.betas.length ? DATA.betas.map((_, b) => b) : [-1]);

// A low-discrepancy offset: neighbouring seeds fall apart, the same seed always at the same place.
const jitter = (seed, width) => (((seed * 0.6180339887) % 1) - 0.5) * width;

function stripTraces(r, k, count, betas, metric) {
  const { color, name, symbol } = look(r);
  const width = SPREAD / count;
  const centre = (j) => j - SPREAD / 2 + (k + 0.5) * width;
  const dots = { x: [], y: [], text: [] },
    bars = { x: [], y: [], text: [] };
  betas.forEach((b, j) => {
    const cell = cellOf(r, stageOf(r), { b });
    if (!cell || !cell.n) return;
    for (const [seed, value] of valuesBySeed(cell, metric)) {
      if (value === null) continue;
      dots.x.push(centre(j) + jitter(seed, width * 0.7));
      dots.y.push(value);
      dots.text.push(
        hover(`${name}, seed ${seed}`, atBeta(b), `${METRIC[metric].label} ${fixed(value, places(metric))}`),
      );
    }
    bars.x.push(centre(j) - width * 0.42, centre(j) + width * 0.42, null);
    bars.y.push(cell[metric].mean, cell[metric].mean, null);
    const { mean, low, high } = cell[metric];
    const [middle, ...ends] = [mean, low, high].map((v) => fixed(v, places(metric)));
    const note = hover(`${name}, mean of ${cell.n} seeds`, middle + (low === null ? "" : ` [${ends.join(", ")}]`));
    bars.text.push(note, note, "");
  });
  return [
    {
      type: "scatter",
      mode: "markers",
      x: dots.x,
      y: dots.y,
      name: short(name),
      legendgroup: name,
      marker: { color: fade(color, 0.6), size: count > 3 ? 4.5 : 6.5, opacity: 1, symbol },
      hoverinfo: "text",
      hovertext: dots.text,
    },
    {
      type: "scatter",
      mode: "lines",
      x: bars.x,
      y: bars.y,
      legendgroup: name,
      showlegend: false,
      line: { color, width: 2.5 },
      hoverinfo: "text",
      hovertext: bars.text,
    },
  ];
}

function lostMarks(betas, recipes) {
  const width = SPREAD / recipes.length;
  return betas.flatMap((b, j) =>
    recipes.flatMap((r, k) => {
      const cell = cellOf(r, stageOf(r), { b });
      const lost = cell ? pooled(cell.lost) || [] : [];
      return lost.length
        ? [
            {
              x: j - SPREAD / 2 + (k + 0.5) * width,
              y: 0,
              yref: "paper",
              yanchor: "bottom",
              text: `\u00d7${lost.length}`,
              showarrow: false,
              font: { color: css("--bad"), size: 12 },
              hovertext: `${lost.length} seeds without a result: ${lost.join(", ")}`,
            },
          ]
        : [];
    }),
  );
}

FIGURES.seeds = {
  plotly: true,
  deps: ["algorithm", "metric", "stage", "variant"],
  controls: () => [
    algorithmControl(),
    metricControl(),
    segmented("after", "stage", [
      ["final", "last stage"],
      ["align", "align stage"],
    ]),
    ...variantControls(),
  ],
  empty: () =>
    stripRecipes().some((r) => stripBetas().some((b) => (cellOf(r, stageOf(r), { b }) || {}).n))
      ? null
      : "No seed of this choice has a result.",
  draw(element, width) {
    const betas = stripBetas(),
      recipes = stripRecipes(),
      metric = state.metric;
    const traces = recipes.flatMap((r, k) => stripTraces(r, k, recipes.length, betas, metric));
    const half =
      metric === "target_mass"
        ? [
            {
              type: "line",
              xref: "paper",
              x0: 0,
              x1: 1,
              y0: 0.5,
              y1: 0.5,
              line: { color: css("--target"), width: 1, dash: "dot" },
            },
          ]
        : [];
    const bands = betas.flatMap((_, j) =>
      j % 2
        ? [
            {
              type: "rect",
              yref: "paper",
              x0: j - 0.5,
              x1: j + 0.5,
              y0: 0,
              y1: 1,
              fillcolor: css("--grid"),
              opacity: 0.45,
              line: { width: 0 },
              layer: "below",
            },
          ]
        : [],
    );
    plotly(element, traces, {
      height: width < 560 ? 420 : 460,
      shapes: [...bands, ...half],
      annotations: lostMarks(betas, recipes),
      xaxis: axis(betas[0] < 0 ? "" : "beta", {
        tickvals: betas.map((_, j) => j),
        ticktext: betas.map(betaText),
        range: [-0.5, betas.length - 0.5],
        showgrid: false,
        zeroline: false,
      }),
      yaxis: axis(metricLabel(metric), { zeroline: false }),
    });
  },
  caption: () =>
    `${selectionText(["algorithm", "variant"])}: ${metricLabel(state.metric)} of every seed after ` +
    `the ${state.stage === "final" ? "last" : "align"} stage; bars are means. ` +
    "Two clouds in one column mean two kinds of outcome: the mean describes neither. " +
    `A ${DATA.words.colours.bad} \u00d7 counts seeds without a result.`,
  table: () => ({
    columns: ["recipe", "beta", "seed", metricLabel(state.metric)],
    rows: stripRecipes().flatMap((r) =>
      stripBetas().flatMap((b) => {
        const cell = cellOf(r, stageOf(r), { b });
        if (!cell) return [];
        const ok = [...valuesBySeed(cell, state.metric)].map(([seed, value]) => [
          DATA.recipes[r].name,
          betaText(b),
          seed,
          value,
        ]);
        return ok.concat(
          (pooled(cell.lost) || []).map((seed) => [DATA.recipes[r].name, betaText(b), seed, "no result"]),
        );
      }),
    ),
  }),
};
