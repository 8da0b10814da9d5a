// An audit decoded: its plans, the shared choice of one, and the words for shares and logarithmic axes.

const PLANS = DATA.plans;
const WINDOWS = DATA.windows;
const HALF = 0.5; // target mass that counts as success

Object.assign(state, { plan: DATA.focus, evidence: 0, per: "token" });

const planText = (p) => `${p.algorithm} at beta ${p.beta}`;
const chosenPlan = () => PLANS[state.plan];
const windowOf = (plan) => (plan && Object.hasOwn(WINDOWS, plan.algorithm) ? WINDOWS[plan.algorithm] : null);
const plansOf = (algorithm) => PLANS.filter((p) => p.algorithm === algorithm);

const planControl = () =>
  PLANS.length > 1
    ? selectControl(
        "plan",
        "plan",
        PLANS.map((p, i) => [i, `${planText(p)}: ${p.verdict}`]),
      )
    : null;

const PER_CENT = "\u00a0%"; // with a space that is no place for a line to end
const QUARTERS = { tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: [0, 25, 50, 75, 100].map((x) => `${x}${PER_CENT}`) };
const known = (x) => x !== null && x !== undefined;

function percentText(x) {
  if (!known(x)) return "\u2013";
  if (x === 0 || x === 1) return `${100 * x}${PER_CENT}`;
  if (x < 1e-4) return `less than 0.01${PER_CENT}`;
  if (x > 0.99) return `more than 99${PER_CENT}`;
  return `${Number((100 * x).toPrecision(2))}${PER_CENT}`;
}

// A count, or a share of one: three digits, thousands apart.
function countText(x) {
  if (!known(x)) return "\u2013";
  if (Math.abs(x) >= 1000) return Math.round(x).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  return String(Number(x.toPrecision(3))).replace("-", MINUS);
}

function numberText(n, text = countText) {
  if (!n || !known(n.value)) return `unknown (${n && n.why ? n.why : "not said"})`;
  if (known(n.low) && known(n.high)) return `${text(n.value)} [${text(n.low)}, ${text(n.high)}]`;
  return `${text(n.value)} (${known(n.low) ? `at least ${text(n.low)}; ` : "no interval: "}${n.why || "not said"})`;
}

// Whole powers of ten where there are many, else 1, 2, 5.
function logTicks(low, high, text, most = 9) {
  const from = Math.floor(Math.log10(low)),
    to = Math.ceil(Math.log10(high));
  const steps = to - from <= 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil((to - from) / most));
  const ticks = [];
  for (let p = from; p <= to; p += every)
    for (const s of steps) {
      const v = s * 10 ** p;
      if (v >= low * 0.999 && v <= high * 1.001) ticks.push(Number(v.toPrecision(6)));
    }
  return { tickvals: ticks, ticktext: ticks.map(text) };
}

function logAxis(title, low, high, { text = String, most = 9, ...extra } = {}) {
  return axis(title, {
    type: "log",
    range: [Math.log10(low), Math.log10(high)],
    ...logTicks(low, high, text, most),
    zeroline: false,
    ...extra,
  });
}

const powerText = (v) => (v >= 1e4 || v < 1e-3 ? `10<sup>${String(Math.round(Math.log10(v))).replace("-", MINUS)}</sup>` : String(v));

// The band between two curves, closed, so that gaps at its ends leave no stray edges.
function bandTrace(x, low, high, color, extra = {}) {
  const at = x.map((_, i) => i).filter((i) => known(low[i]) && known(high[i]));
  const back = [...at].reverse();
  return {
    type: "scatter",
    mode: "lines",
    x: [...at.map((i) => x[i]), ...back.map((i) => x[i])],
    y: [...at.map((i) => high[i]), ...back.map((i) => low[i])],
    fill: "toself",
    fillcolor: fade(color, 0.16),
    line: { width: 0, color },
    hoverinfo: "skip",
    ...extra,
  };
}

// Where a number has an interval: bars about it, for plotly.
function bars(points, color) {
  const gap = (n, end) => (known(n.value) && known(n[end]) ? Math.abs(n[end] - n.value) : 0);
  return {
    type: "data",
    symmetric: false,
    array: points.map((n) => gap(n, "high")),
    arrayminus: points.map((n) => gap(n, "low")),
    color,
    thickness: 1.75,
    width: 5,
  };
}

const vertical = (x, color, { xref = "x", yref = "y domain", dash = "dash", width = 1.5 } = {}) => ({
  type: "line",
  xref,
  yref,
  x0: x,
  x1: x,
  y0: 0,
  y1: 1,
  line: { color, width, dash },
  layer: "below",
});
