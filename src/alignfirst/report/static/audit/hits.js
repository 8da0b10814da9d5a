// Hits that a number of rollouts is expected to find, and how well the reference covers the teacher.

const MOST_ROLLOUTS = 1e10;
const LEAST_HITS = 0.01;

function hitsRange(plan) {
  const mass = DATA.reference.target_mass;
  const far = [plan.rollouts, plan.to_see && plan.to_see.value, plan.rollouts_needed && plan.rollouts_needed.value];
  const known_ = far.filter(known);
  const best = mass.value || mass.high || 1e-6;
  const top = Math.min(MOST_ROLLOUTS, Math.max(1e3, 10 / best, ...known_.map((n) => 4 * n)));
  const bottom = Math.max(1, Math.min(100, ...known_.map((n) => (n > 0 ? n / 10 : 1))));
  return [10 ** Math.floor(Math.log10(bottom)), 10 ** Math.ceil(Math.log10(top))];
}

// What one hit of this plan is worth: its effective hits over its hits.
function worthOf(plan) {
  const [l, n] = [plan.effective && plan.effective.value, plan.hits && plan.hits.value];
  return known(l) && known(n) && n > 0 ? l / n : null;
}

const hitsGrid = ([from, to]) => Array.from({ length: 61 }, (_, i) => from * (to / from) ** (i / 60));

function hitsTraces(plan, range) {
  const mass = DATA.reference.target_mass;
  const n = hitsGrid(range);
  const color = css("--target");
  const floor = (x) => Math.max(x, LEAST_HITS / 10);
  const traces = [];
  if (known(mass.high))
    traces.push(
      bandTrace(n, n.map((x) => floor(x * (mass.low || 0))), n.map((x) => floor(x * mass.high)), color, { showlegend: false }),
    );
  const line = (name, factor, dash) => ({
    type: "scatter",
    mode: "lines",
    x: n,
    y: n.map((x) => (factor > 0 ? x * factor : null)),
    name,
    line: { color, width: 2.25, dash },
    hoverinfo: "text",
    hovertext: n.map((x) => hover(`${countText(x)} rollouts`, `${countText(x * factor)} ${name.split(",")[0]}`)),
  });
  if (mass.value > 0) traces.push(line(`hits expected, ${DATA.words.level} interval`, mass.value, "solid"));
  const worth = worthOf(plan);
  if (worth !== null && worth < 0.995 && mass.value > 0)
    traces.push(line("effective hits, discounted for their quality", mass.value * worth, "dot"));
  const planned = PLANS.filter((p) => known(p.rollouts) && p.hits && p.hits.value > 0);
  const places = [...new Map(planned.map((p) => [p.rollouts, p])).values()];
  traces.push({
    type: "scatter",
    mode: "markers",
    x: places.map((p) => p.rollouts),
    y: places.map((p) => p.hits.value),
    error_y: bars(places.map((p) => (p.rollouts === plan.rollouts ? p.hits : {})), css("--ink")),
    name: "planned",
    marker: {
      symbol: "diamond",
      size: places.map((p) => (p.rollouts === plan.rollouts ? 12 : 8)),
      color: places.map((p) => (p.rollouts === plan.rollouts ? css("--ink") : css("--surface"))),
      line: { color: css("--ink"), width: 2 },
    },
    hoverinfo: "text",
    hovertext: places.map((p) => {
      const names = planned.filter((x) => x.rollouts === p.rollouts).map((x) => x.algorithm);
      return hover([...new Set(names)].join(", "), `${countText(p.rollouts)} rollouts`, `hits expected ${numberText(p.hits)}`);
    }),
  });
  return traces;
}

function hitsShapes(plan, [, to]) {
  const shapes = known(plan.rollouts) ? [vertical(plan.rollouts, css("--ink"), { dash: "dot" })] : [];
  const needed = plan.rollouts_needed && plan.rollouts_needed.value;
  if (needed > 0 && needed < to) shapes.push(vertical(needed, css("--good"), { width: 2 }));
  if (plan.needed_hits >= LEAST_HITS)
    shapes.push({
      type: "line", xref: "x domain", yref: "y", x0: 0, x1: 1, y0: plan.needed_hits, y1: plan.needed_hits, layer: "below",
      line: { color: css("--muted"), width: 1.25, dash: "dash" },
    });
  return shapes;
}

FIGURES.hits = {
  plotly: true,
  deps: ["plan"],
  controls: () => [planControl()],
  draw(element, width) {
    const plan = chosenPlan();
    const range = hitsRange(plan);
    const mass = DATA.reference.target_mass;
    const top = Math.max(10, range[1] * (mass.high || mass.value || 1e-6), 2 * (plan.needed_hits || 0));
    plotly(element, hitsTraces(plan, range), {
      height: width < 560 ? 420 : 430,
      shapes: hitsShapes(plan, range),
      xaxis: logAxis("rollouts", ...range, { text: powerText, most: width < 560 ? 5 : 9 }),
      yaxis: logAxis("hits", LEAST_HITS, top, { text: powerText, most: 7 }),
    });
  },
  caption() {
    const plan = chosenPlan();
    const mass = DATA.reference.target_mass;
    const parts = [
      `${planText(plan)}: ${known(plan.rollouts) ? `${countText(plan.rollouts)} rollouts (dotted)` : "rollouts not given"}, ` +
        `hits expected ${numberText(plan.hits)}.`,
    ];
    if (known(plan.needed_hits))
      parts.push(
        `Dashed across: ${countText(plan.needed_hits)} effective hits, with which training finds 63 % of what there is to gain.`,
      );
    parts.push(`Rollouts that bring the target to half of outputs (${DATA.words.colours.good}, dashed): ${numberText(plan.rollouts_needed)}.`);
    parts.push(`Target mass of the reference: ${numberText(mass, percentText)}.`);
    if (!(mass.value > 0)) parts.push("No hit was seen, so there is only an upper bound.");
    return parts.join(" ");
  },
  table() {
    const mass = DATA.reference.target_mass;
    const times = (n, x) => (known(x) ? n * x : null);
    const range = hitsRange(chosenPlan());
    const decades = [];
    for (let n = range[0]; n <= range[1] * 1.001; n *= 10) decades.push(Math.round(n));
    const planned = PLANS.map((p) => p.rollouts).filter(known);
    const rows = [...new Set([...decades, ...planned])].sort((a, b) => a - b);
    return {
      columns: ["rollouts", "hits expected", "low", "high"],
      rows: rows.map((n) => [n, ...[mass.value, mass.low, mass.high].map((x) => times(n, x)).map((x) => (x === null ? null : Number(x.toPrecision(4))))]),
    };
  },
};

const COVERED = DATA.coverage.profile.filter((p) => known(p.value));

FIGURES.coverage = {
  plotly: true,
  deps: [],
  draw(element, width) {
    const color = css("--second");
    const trace = {
      type: "scatter",
      mode: "lines+markers",
      x: COVERED.map((p) => p.n),
      y: COVERED.map((p) => p.value),
      error_y: bars(COVERED, color),
      line: { color, width: 2.25 },
      marker: { color, size: 8 },
      hoverinfo: "text",
      hovertext: COVERED.map((p) => hover(`N = ${countText(p.n)}`, numberText(p, percentText))),
      showlegend: false,
    };
    const last = COVERED[COVERED.length - 1].n;
    plotly(element, [trace], {
      height: 400,
      xaxis: logAxis("N, times as many draws as the teacher", COVERED[0].n * 0.7, last * 1.4, {
        text: powerText, most: width < 560 ? 4 : 9,
      }),
      yaxis: axis("share covered", {
        range: [-0.03, 1.03], ...QUARTERS,
      }),
    });
  },
  caption: () =>
    `Coverage of ${DATA.coverage.of}. At parity (N = 1): ${numberText(COVERED[0], percentText)}; in ` +
    `${countText(COVERED[COVERED.length - 1].n)} times the draws: ${numberText(COVERED[COVERED.length - 1], percentText)}. Bars are ${DATA.words.level} intervals.`,
  table: () => ({
    columns: ["N", "share covered", "low", "high", "without interval because"],
    rows: DATA.coverage.profile.map((p) => [p.n, p.value, p.low, p.high, p.why]),
  }),
};
