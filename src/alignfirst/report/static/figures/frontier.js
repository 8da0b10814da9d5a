// Reward against KL to the reference: what alignment paid for, beside the exact optimum of the same reference.

const alignStages = () =>
  DATA.recipes.flatMap((recipe, r) =>
    recipe.stages.flatMap((kind, i) =>
      kind === "align" ? [{ r, i, again: recipe.stages.indexOf("align") !== i }] : [],
    ),
  );

// The cells of one align stage along beta, in the order of beta; a baseline without beta is a single point.
function alongBeta({ r, i }, algorithm) {
  return CELLS.filter(
    (c) => c.v === state.variant && c.r === r && c.i === i && c.a === algorithm && c.n && c.kl_to_reference !== null,
  ).sort((p, q) => p.b - q.b);
}

const stageName = ({ r, again }) => DATA.recipes[r].name + (again ? ", second align" : "");

function frontierHover(stage, cell) {
  const optimum =
    cell.exact_reward === null
      ? ""
      : `exact optimum: reward ${fixed(cell.exact_reward)}` +
        (cell.exact_kl === null ? "" : `, KL ${fixed(cell.exact_kl, 2)} nats`);
  const where = `${algorithmText(cell.a)}, ${atBeta(cell.b)}`;
  const reached = [`reward ${fixed(cell.reward.mean)}`, `KL ${fixed(cell.kl_to_reference, 2)} nats`];
  return hover(stageName(stage), where, ...reached, optimum, `${cell.n} seeds`);
}

function frontierTraces(stage) {
  const { color, symbol } = look(stage.r);
  const cells = alongBeta(stage, state.algorithm);
  const name = short(stageName(stage), 40),
    legendgroup = name;
  const here = cells.map((c) => c.b === state.beta);
  const exact = cells.filter((c) => c.exact_kl !== null && c.exact_reward !== null);
  return [
    {
      type: "scatter",
      mode: "lines",
      x: exact.map((c) => c.exact_kl),
      y: exact.map((c) => c.exact_reward),
      legendgroup,
      line: { color: fade(color, 0.75), width: 1.75, dash: stage.again ? "dashdot" : "dot" },
      hoverinfo: "skip",
      showlegend: false,
    },
    {
      type: "scatter",
      mode: "lines+markers+text",
      x: cells.map((c) => c.kl_to_reference),
      y: cells.map((c) => c.reward.mean),
      name,
      legendgroup,
      line: { color, width: 2.25 },
      marker: {
        color: here.map((x) => (x ? color : css("--surface"))),
        size: here.map((x) => (x ? 13 : 8)),
        symbol,
        opacity: 1,
        line: { color, width: 2 },
      },
      cliponaxis: false,
      text: cells.map((c, i) => (c.b >= 0 && (i === 0 || here[i]) ? betaText(c.b) : "")),
      textposition: "top center",
      textfont: { size: 11, color: css("--muted") },
      hoverinfo: "text",
      hovertext: cells.map((c) => frontierHover(stage, c)),
    },
  ];
}

FIGURES.frontier = {
  plotly: true,
  deps: ["algorithm", "beta", "variant"],
  controls: () => [algorithmControl(), betaControl(), ...variantControls()],
  empty: () =>
    alignStages().some((s) => alongBeta(s, state.algorithm).length)
      ? null
      : "No align stage of this choice has a KL to its reference.",
  draw(element, width) {
    const traces = alignStages().flatMap(frontierTraces);
    plotly(element, traces, {
      height: width < 560 ? 440 : 480,
      xaxis: axis("KL to the stage's own reference, nats", { rangemode: "tozero" }),
      yaxis: axis("reward", { rangemode: "tozero" }),
    });
  },
  caption: () =>
    `${selectionText(["algorithm", "variant"])}. One point a beta (the smallest and the chosen one are labelled), ` +
    "mean over seeds. " +
    (CELLS.some((c) => c.exact_kl !== null)
      ? "Dotted: the exact optimum of the same reference; no policy earns more reward at the same KL. " +
        "All are means over seeds; where seeds differ much, a mean can lie beside the curve. " +
        "Recipes with different references count KL from different places."
      : CELLS.some((c) => c.exact_reward !== null)
        ? "This run has no exact KL, so the exact optimum is given by its reward alone, on hover and in the table."
        : "No exact optimum is known in this world. KL is estimated from the model\u2019s own samples."),
  table: () => ({
    columns: [
      "recipe",
      "beta",
      "reward",
      "KL to reference (nats)",
      "exact reward",
      "exact KL (nats)",
      "KL to optimum (nats)",
      "seeds",
    ],
    rows: alignStages().flatMap((s) =>
      alongBeta(s, state.algorithm).map((c) => [
        stageName(s),
        betaText(c.b),
        c.reward.mean,
        c.kl_to_reference,
        c.exact_reward,
        c.exact_kl,
        c.kl_to_optimum,
        c.n,
      ]),
    ),
  }),
};
