// What the audit said before training against what training reached: one mark an alignment, coloured by its verdict.

const AUDITED = decode(DATA.audited);
const CALLS = DATA.calls; // each with its look

const auditedNow = () => AUDITED.filter((p) => p.v === state.variant && p.a === state.algorithm);

function auditedTraces(said, reached, suffix, showlegend) {
  return CALLS.map(({ name, look }, c) => {
    const mine = auditedNow().filter((p) => p.c === c);
    return {
      type: "scatter",
      mode: "markers",
      name,
      legendgroup: name,
      showlegend: showlegend && mine.length > 0,
      xaxis: `x${suffix}`,
      yaxis: `y${suffix}`,
      x: mine.map((p) => p[said]),
      y: mine.map((p) => p[reached]),
      marker: { symbol: look.symbol, size: 7, opacity: 0.75, color: themed(look) },
      hoverinfo: "text",
      hovertext: mine.map((p) =>
        hover(
          `${name}: ${DATA.recipes[p.r].name}`,
          `${algorithmText(p.a)}, ${atBeta(p.b)}, seed ${p.s}`,
          `reward ${fixed(p.said_reward)} said, ${fixed(p.reward)} reached`,
          `target mass ${fixed(p.said_mass)} said, ${fixed(p.mass)} reached`,
        ),
      ),
    };
  });
}

const meanGap = (said, reached) =>
  auditedNow().reduce((sum, p) => sum + Math.abs(p[said] - p[reached]), 0) / auditedNow().length;

FIGURES.audited = {
  plotly: true,
  deps: ["algorithm", "variant"],
  controls: () => [algorithmControl(), ...variantControls()],
  empty: () => {
    if (auditedNow().length) return null;
    if (!AUDITED.length) return "The single alignments were left out to keep this page small; the table above counts them.";
    return `The audit has no numbers for ${algorithmText(state.algorithm)} here.`;
  },
  draw(element, width) {
    const p = panels(width, 0.14);
    const rewards = auditedNow().flatMap((q) => [q.said_reward, q.reward]);
    const low = Math.min(0, ...rewards),
      top = Math.max(0.1 + low, ...rewards),
      slack = 0.04 * (top - low);
    const square = (title, anchor, domain, range) => axis(title, { domain, range, anchor, zeroline: false });
    const line = (x0, y0, x1, y1, suffix, dash) => ({
      type: "line",
      layer: "below",
      xref: `x${suffix}`,
      yref: `y${suffix}`,
      x0,
      y0,
      x1,
      y1,
      line: { color: css("--line"), width: 1.5, dash },
    });
    plotly(
      element,
      [...auditedTraces("said_reward", "reward", "", true), ...auditedTraces("said_mass", "mass", "2", false)],
      {
        height: p.height,
        shapes: [
          line(low, low, top, top, "", "solid"),
          line(0, 0, 1, 1, "2", "solid"),
          line(0, 0.5, 1, 0.5, "2", "dot"),
        ],
        xaxis: square("reward the audit predicted", "y", p.x[0], [low - slack, top + slack]),
        yaxis: square("reward reached", "x", p.y[0], [low - slack, top + slack]),
        xaxis2: square("target mass the audit predicted", "y2", p.x[1], [-0.03, 1.03]),
        yaxis2: square("target mass reached", "x2", p.y[1], [-0.03, 1.03]),
      },
    );
  },
  caption: () =>
    `${selectionText(["algorithm", "variant"])}. ` +
    (auditedNow().length
      ? `Each of the ${auditedNow().length} marks is one alignment: a reference, a beta and a seed. ` +
        `On the diagonal training ended where the audit said; mean distance ${fixed(meanGap("said_reward", "reward"))} in ` +
        `reward, ${fixed(meanGap("said_mass", "mass"))} in target mass. Above the dotted line the target was reached.`
      : ""),
  table: () => ({
    columns: [
      "recipe",
      "beta",
      "seed",
      "verdict",
      "predicted reward",
      "reward",
      "predicted target mass",
      "target mass",
    ],
    rows: auditedNow().map((p) => [
      DATA.recipes[p.r].name,
      betaText(p.b),
      p.s,
      CALLS[p.c].name,
      p.said_reward,
      p.reward,
      p.said_mass,
      p.mass,
    ]),
  }),
};
