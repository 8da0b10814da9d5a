// Predicted against reached, on references that the audit had not seen and whose alignment was then trained.

const EVIDENCE = Object.keys(DATA.calibration);
const SCORES = [
  ["spearman audit", "rank correlation with the reward reached"],
  ["auc audit", "AUC of success"],
  ["mae", "mean absolute error of reward"],
  ["decided right", "decided verdicts right"],
  ["go right", "go right"],
  ["no-go right", "no-go right"],
  ["undecided", "undecided"],
  ["reward in its interval", "rewards inside their interval"],
  ["mass in its interval", "target masses inside their interval"],
  ["auc recall", "AUC of recall alone"],
  ["auc hits", "AUC of hits alone"],
];
state.evidence = Math.max(0, PLANS.length ? EVIDENCE.indexOf(PLANS[DATA.focus].algorithm) : 0);

const evidencePoints = () => DATA.calibration[EVIDENCE[state.evidence]] || [];
const scoreOf = (name) => (DATA.scores[EVIDENCE[state.evidence]] || {})[name];
const scoreText = (s) => (s ? `${s[0].toFixed(3)} [${s[1].toFixed(3)}, ${s[2].toFixed(3)}]` : "\u2013");

FIGURES.calibration = {
  plotly: true,
  deps: ["evidence"],
  controls: () => [selectControl("algorithm", "evidence", EVIDENCE.map((a, i) => [i, a]))],
  draw(element, width) {
    const points = evidencePoints().map((p) => ({ ...p, value: p.reached }));
    const color = css("--first");
    const most = points.reduce((a, p) => Math.max(a, p.n), 1);
    const shares = { range: [-0.04, 1.04], ...QUARTERS };
    plotly(
      element,
      [
        {
          type: "scatter",
          mode: "lines+markers",
          x: points.map((p) => p.predicted),
          y: points.map((p) => p.value),
          error_y: bars(points, color),
          line: { color: fade(color, 0.5), width: 1.5 },
          marker: { color, size: points.map((p) => 6 + 12 * Math.sqrt(p.n / most)), opacity: 0.9, line: { width: 0 } },
          hoverinfo: "text",
          hovertext: points.map((p) =>
            hover(`predicted ${percentText(p.predicted)}`, `reached in ${numberText(p, percentText)}`, `${p.n} alignments`),
          ),
          showlegend: false,
        },
      ],
      {
        height: Math.min(480, Math.max(340, width * 0.6)),
        shapes: [
          {
            type: "line", xref: "x", yref: "y", x0: 0, y0: 0, x1: 1, y1: 1, layer: "below",
            line: { color: css("--muted"), width: 1.25, dash: "dash" },
          },
        ],
        xaxis: axis("predicted target mass", shares),
        yaxis: axis("share that reached the target", shares),
      },
    );
  },
  caption() {
    const said = SCORES.slice(0, 4).filter(([name]) => scoreOf(name)).map(([name, text]) => `${text} ${scoreText(scoreOf(name))}`);
    return (
      `${EVIDENCE[state.evidence]}. Discs are groups of alignments by predicted mass, larger for more of them, with Clopper and Pearson's ` +
      "intervals; on the dashed line as many succeed as was predicted. A prediction says where the mass ends, not how often: so the curve is steeper. " +
      (said.length ? `On held-out teachers: ${said.join("; ")}.` : "")
    );
  },
  table() {
    const points = evidencePoints().map((p) => [`predicted ${percentText(p.predicted)}`, p.reached, p.low, p.high, p.n]);
    const scores = SCORES.filter(([name]) => scoreOf(name)).map(([name, text]) => [text, ...scoreOf(name), null]);
    return { columns: ["what", "value", "low", "high", "alignments"], rows: [...points, ...scores] };
  },
};
