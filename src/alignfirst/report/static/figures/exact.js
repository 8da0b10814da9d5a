// Theory without training against what training reached.

const trainedCells = () =>
  CELLS.filter((c) => c.v === state.variant && c.n && c.kind === "align" && c.exact_reward !== null);
const predictedCells = () =>
  CELLS.filter((c) => c.v === state.variant && c.n && c.final && c.predicted_target_mass !== null && c.a >= 0);

function scatterTraces(cells, x, y, suffix, showlegend) {
  return recipesWith((r) => cells.some((c) => c.r === r)).map((r) => {
    const { color, symbol, name } = look(r);
    const mine = cells.filter((c) => c.r === r);
    const chosen = mine.map((c) => c.a === state.algorithm);
    return {
      type: "scatter",
      mode: "markers",
      name: short(name),
      legendgroup: name,
      showlegend,
      xaxis: `x${suffix}`,
      yaxis: `y${suffix}`,
      x: mine.map(x),
      y: mine.map(y),
      marker: {
        symbol,
        opacity: 1,
        size: chosen.map((s) => (s ? 11 : 7)),
        color: chosen.map((s) => (s ? color : fade(color, 0.35))),
        line: { width: chosen.map((s) => (s ? 1.25 : 0)), color: css("--surface") },
      },
      hoverinfo: "text",
      hovertext: mine.map((c) =>
        hover(
          name,
          `${algorithmText(c.a)}, ${atBeta(c.b)}`,
          `theory ${fixed(x(c))}, reached ${fixed(y(c))}`,
          `${c.n} seeds`,
        ),
      ),
    };
  });
}

function diagonal(suffix, top) {
  return {
    type: "scatter",
    mode: "lines",
    x: [0, top],
    y: [0, top],
    xaxis: `x${suffix}`,
    yaxis: `y${suffix}`,
    line: { color: css("--line"), width: 1.5 },
    hoverinfo: "skip",
    showlegend: false,
  };
}

FIGURES.exact = {
  plotly: true,
  deps: ["algorithm", "variant"],
  controls: () => [algorithmControl(), ...variantControls()],
  empty: () =>
    trainedCells().length || predictedCells().length
      ? null
      : "This run has neither exact optima nor predictions to compare with.",
  draw(element, width) {
    const p = panels(width, 0.14);
    const left = trainedCells(),
      right = predictedCells();
    const top = 1.05 * Math.max(...left.flatMap((c) => [c.exact_reward, c.reward.mean]), 0.1);
    const square = (title, anchor, domain, range) => axis(title, { domain, range, anchor, zeroline: false });
    plotly(
      element,
      [
        diagonal("", top),
        ...scatterTraces(
          left,
          (c) => c.exact_reward,
          (c) => c.reward.mean,
          "",
          true,
        ),
        diagonal("2", 1.03),
        ...scatterTraces(
          right,
          (c) => c.predicted_target_mass,
          (c) => c.target_mass.mean,
          "2",
          !left.length,
        ),
      ],
      {
        height: p.height,
        xaxis: square("exact reward of the align stage's optimum", "y", p.x[0], [-0.03 * top, top]),
        yaxis: square("reward reached", "x", p.y[0], [-0.03 * top, top]),
        xaxis2: square("predicted target mass at the last stage", "y2", p.x[1], [-0.03, 1.03]),
        yaxis2: square("target mass reached", "x2", p.y[1], [-0.03, 1.03]),
      },
    );
  },
  caption: () =>
    `Each mark is one algorithm at one beta, mean over seeds${DATA.study.varied.length ? `, ${variantText()}` : ""}; ` +
    `${algorithmText(state.algorithm)} stands out. ` +
    "On the diagonal training got what theory says. Below it, training fell short: " +
    "an optimiser that never found the target, or samples too few.",
  table: () => ({
    columns: [
      "recipe",
      "algorithm",
      "beta",
      "stage",
      "exact reward",
      "reward",
      "exact target mass",
      "target mass",
      "predicted reward",
      "predicted target mass",
      "KL to optimum (nats)",
    ],
    rows: CELLS.filter((c) => c.v === state.variant && c.n && (c.kind === "align" || c.final) && c.a >= 0).map((c) => [
      DATA.recipes[c.r].name,
      algorithmText(c.a),
      betaText(c.b),
      stageText(c.kind),
      c.exact_reward,
      c.reward.mean,
      c.exact_target_mass,
      c.target_mass.mean,
      c.predicted_reward,
      c.predicted_target_mass,
      c.kl_to_optimum,
    ]),
  }),
};
