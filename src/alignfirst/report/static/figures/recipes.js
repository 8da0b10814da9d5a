// Studies of more than the two orders: how every recipe ends, with intervals.

const recipeCells = () => DATA.recipes.map((_, r) => ({ r, cell: finalOf(r) })).filter(({ cell }) => cell);

const lost = (cell) => (cell.failed ? `, ${cell.failed} without a result` : "");

FIGURES.recipes = {
  plotly: true,
  deps: ["algorithm", "beta", "metric", "variant"],
  controls: () => [algorithmControl(), betaControl(), metricControl(), ...variantControls()],
  empty: () => (recipeCells().some(({ cell }) => cell.n) ? null : "No recipe of this choice has a result."),
  draw(element, width) {
    const rows = recipeCells();
    const m = state.metric;
    const traces = rows.map(({ r, cell }, j) => {
      const { color, symbol, name } = look(r);
      const s = cell[m];
      const range = s.low === null ? "" : ` [${fixed(s.low, places(m))}, ${fixed(s.high, places(m))}]`;
      return {
        type: "scatter",
        mode: "markers",
        x: [s.mean],
        y: [j],
        showlegend: false,
        marker: { color, symbol, size: 13, line: { color: css("--surface"), width: 1 } },
        error_x:
          s.low === null
            ? undefined
            : {
                type: "data",
                symmetric: false,
                array: [s.high - s.mean],
                arrayminus: [s.mean - s.low],
                color,
                thickness: 2,
                width: 5,
              },
        hoverinfo: "text",
        hovertext: [
          hover(name, `${METRIC[m].label} ${fixed(s.mean, places(m))}${range}`, `${cell.n} seeds${lost(cell)}`),
        ],
      };
    });
    const label = ({ r, cell }) => short(look(r).name) + (cell.failed ? ` (${cell.failed} failed)` : "") + "\u2002";
    const narrow = width < 560;
    const above = rows.map((row, j) => ({
      x: 0,
      xref: "paper",
      xanchor: "left",
      y: j,
      yshift: 15,
      text: label(row),
      showarrow: false,
      font: { size: 12 },
    }));
    plotly(element, traces, {
      height: 100 + rows.length * (narrow ? 52 : 42),
      annotations: narrow ? above : [],
      xaxis: axis(metricLabel(m), { zeroline: false }),
      yaxis: axis("", {
        tickvals: rows.map((_, j) => j),
        ticktext: narrow ? rows.map(() => "") : rows.map(label),
        range: [rows.length - 0.5, -0.7],
        zeroline: false,
      }),
    });
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "variant"])}: ${metricLabel(state.metric)} at the end of each recipe, ` +
    `mean over seeds with its ${DATA.words.level} t interval (none below ${DATA.words.min_seeds} seeds).`,
  table: () => ({
    columns: ["recipe", "mean", "interquartile mean", "low", "high", "sd over seeds", "seeds", "without a result"],
    rows: recipeCells().map(({ r, cell }) => {
      const s = cell[state.metric];
      return [DATA.recipes[r].name, s.mean, s.iqm, s.low, s.high, s.sd, cell.n, cell.failed];
    }),
  }),
};
