// Predicted target mass and reward over beta, with the window in which alignment is predicted to work.

const TILT_PANELS = [
  ["target_mass", "target mass", "mass", percentText],
  ["reward", "reward", "reward", (x) => fixed(x)],
];

// [from, to] of the betas that are predicted to work; null where there are none.
function workingBetas(w) {
  if (!known(w.lower_beta)) return null;
  if (known(w.upper_beta.value)) return [w.lower_beta, w.upper_beta.value];
  const last = w.target_mass[w.target_mass.length - 1];
  return known(last) && last > HALF ? [w.lower_beta, w.beta[w.beta.length - 1]] : null;
}

function tiltTraces(w, plan, [key, , field, text], second) {
  const on = second ? { xaxis: "x2", yaxis: "y2" } : {};
  const color = css(second ? "--first" : "--target");
  const say = w.beta.map((b, i) => {
    const [low, high] = [w[`${key}_low`][i], w[`${key}_high`][i]];
    const range = known(low) && known(high) ? `${DATA.words.level} interval ${text(low)} to ${text(high)}` : "no interval";
    const ess = w.effective_sample_size[i];
    return hover(`beta ${Number(b.toPrecision(3))}`, `${text(w[key][i])}`, range, known(ess) && `${countText(ess)} effective draws`);
  });
  // Left of `lower_beta` too few draws carry the tilt: the curve is dotted there, and has no band.
  const weak = (b) => known(w.lower_beta) && b < w.lower_beta;
  const only = (values, keep) => values.map((v, i) => (keep(i) ? v : null));
  const firm = (values) => only(values, (i) => !weak(w.beta[i]));
  const first = w.beta.findIndex((b) => !weak(b));
  const curve = (y, dash, extra) => ({
    type: "scatter",
    mode: "lines",
    x: w.beta,
    y,
    line: { color, width: 2.25, dash },
    hoverinfo: "text",
    hovertext: say,
    ...on,
    ...extra,
  });
  const planned = plansOf(plan.algorithm).filter((p) => known(p[field].value));
  return [
    bandTrace(w.beta, firm(w[`${key}_low`]), firm(w[`${key}_high`]), color, { showlegend: false, ...on }),
    curve(only(w[key], (i) => i <= first), "dot", { opacity: 0.55, showlegend: false }),
    curve(firm(w[key]), "solid", { name: `${second ? "reward" : "target mass"}, ${DATA.words.level.replace(" %", PER_CENT)} interval` }),
    {
      type: "scatter",
      mode: "markers",
      x: planned.map((p) => p.beta),
      y: planned.map((p) => p[field].value),
      error_y: bars(
        planned.map((p) => p[field]),
        css("--ink"),
      ),
      name: "planned",
      showlegend: !second,
      marker: {
        size: planned.map((p) => (p.beta === plan.beta ? 12 : 8)),
        color: planned.map((p) => (p.beta === plan.beta ? css("--ink") : css("--surface"))),
        symbol: "diamond",
        line: { color: css("--ink"), width: 2 },
      },
      hoverinfo: "text",
      hovertext: planned.map((p) => hover(planText(p), p.verdict, numberText(p[field], text))),
      ...on,
    },
  ];
}

const BAR = 0.022; // height of the window's bar on the axis, full where the window is sure

function tiltShapes(w, plan) {
  const shapes = [];
  const works = workingBetas(w);
  for (const [xref, yref] of [
    ["x", "y domain"],
    ["x2", "y2 domain"],
  ]) {
    const box = (x0, x1, fillcolor, y1 = 1) =>
      shapes.push({ type: "rect", xref, yref, x0, x1, y0: 0, y1, fillcolor, line: { width: 0 }, layer: "below" });
    if (works) {
      box(...works, fade(css("--good"), 0.08));
      box(...works, fade(css("--good"), 0.5), BAR);
      const sure = w.upper_beta.low;
      if (known(sure) && sure > works[0]) box(works[0], sure, css("--good"), BAR);
    }
    if (known(w.lower_beta) && w.lower_beta > w.beta[0]) box(w.beta[0], w.lower_beta, fade(css("--muted"), 0.1));
    for (const p of plansOf(plan.algorithm))
      shapes.push(vertical(p.beta, css("--ink"), { xref, yref, width: p.beta === plan.beta ? 1.75 : 1, dash: "dot" }));
  }
  shapes.push({
    type: "line", xref: "x domain", yref: "y", x0: 0, x1: 1, y0: HALF, y1: HALF, layer: "below",
    line: { color: css("--muted"), width: 1, dash: "dash" },
  });
  return shapes;
}

function tiltLegend(w) {
  const square = (name, color) => ({
    type: "scatter", mode: "markers", x: [null], y: [null], name, hoverinfo: "skip",
    marker: { symbol: "square", size: 12, color },
  });
  const entries = [];
  if (workingBetas(w)) entries.push(square("beta window", css("--good")));
  if (known(w.lower_beta) && w.lower_beta > w.beta[0])
    entries.push(square("too few draws to tell", fade(css("--muted"), 0.3)));
  return entries;
}

FIGURES.tilt = {
  plotly: true,
  deps: ["plan"],
  controls: () => [planControl()],
  empty() {
    const plan = chosenPlan(),
      w = windowOf(plan);
    if (plan.refused) return `No number is predicted for ${plan.algorithm}: ${plan.refused}.`;
    if (!w || !w.beta.length) return w && w.note ? `No curve: ${w.note}.` : `No curve for ${plan.algorithm}.`;
    return [...w.target_mass, ...w.reward].some(known) ? null : `No curve: ${w.note}.`;
  },
  draw(element, width) {
    const plan = chosenPlan(),
      w = windowOf(plan);
    const at = panels(width);
    const [low, high] = [w.beta[0], w.beta[w.beta.length - 1]];
    const x = (i, extra) =>
      logAxis("beta", low, high, { text: (v) => String(v), domain: at.x[i], anchor: i ? "y2" : "y", ...extra });
    const traces = TILT_PANELS.flatMap((panel, i) => tiltTraces(w, plan, panel, i === 1));
    plotly(element, [...traces, ...tiltLegend(w)], {
      height: at.wide ? 430 : 800,
      shapes: tiltShapes(w, plan),
      xaxis: x(0),
      xaxis2: x(1),
      yaxis: axis("target mass", {
        domain: at.y[0], anchor: "x", range: [-0.02, 1.02], ...QUARTERS,
      }),
      yaxis2: axis("reward", { domain: at.y[1], anchor: "x2" }),
    });
  },
  caption() {
    const plan = chosenPlan(),
      w = windowOf(plan);
    if (!w) return "";
    const found = known(plan.rollouts) ? ` with ${countText(plan.rollouts)} rollouts` : ", rollouts not given: the optimum itself";
    return (
      `${plan.algorithm}${found}. Beta window (${DATA.words.colours.good} bar, full where it is sure): ${w.note.replace("<=", "\u2264")}. The dashed line is half of outputs, which counts as success; ` +
      "dotted verticals are the planned betas. Bands hold sampling error and the error that the rule made on trained mixtures."
    );
  },
  table() {
    const w = windowOf(chosenPlan());
    const keys = ["target_mass", "target_mass_low", "target_mass_high", "reward", "reward_low", "reward_high"];
    return {
      columns: ["beta", "target mass", "low", "high", "reward", "low", "high", "effective draws"],
      rows: w ? w.beta.map((b, i) => [b, ...keys.map((k) => w[k][i]), w.effective_sample_size[i]]) : [],
    };
  },
};
