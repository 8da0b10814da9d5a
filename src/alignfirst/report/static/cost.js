// What each stage costs, and what reward that buys.

function stageCosts(r) {
  return DATA.recipes[r].stages
    .map((kind, i) => ({ kind, cell: cellOf(r, i) }))
    .filter(({ cell }) => cell && cell.flops !== null);
}

const totalFlops = (r) => stageCosts(r).reduce((sum, { cell }) => sum + cell.flops, 0);
const costed = () => recipesWith((r) => totalFlops(r) > 0);
const rewardPerFlop = (r) => {
  const cell = finalOf(r);
  return cell && cell.n && cell.reward.mean !== null ? cell.reward.mean / totalFlops(r) : null;
};

function costTraces(recipes, room) {
  const depth = Math.max(...recipes.map((r) => stageCosts(r).length));
  const longest = Math.max(...recipes.map(totalFlops)); // a name is written only where it fits
  const shades = ["0.35", "0.65", "1", "0.8"];
  return Array.from({ length: depth }, (_, i) => {
    const mine = recipes.map((r) => stageCosts(r)[i]);
    return {
      type: "bar",
      orientation: "h",
      y: recipes.map((_, j) => j),
      x: mine.map((s) => (s ? s.cell.flops : null)),
      showlegend: false,
      width: 0.56,
      marker: {
        color: recipes.map((r) => fade(look(r).color, Number(shades[i % 4]))),
        line: { color: css("--surface"), width: 1.5 },
      },
      text: mine.map((s) =>
        s && (s.cell.flops / longest) * room > 7 * stageText(s.kind).length + 8 ? esc(stageText(s.kind)) : "",
      ),
      textposition: "inside",
      insidetextanchor: "middle",
      textangle: 0,
      textfont: { size: 11.5, color: shades[i % 4] === "1" ? css("--surface") : css("--ink") },
      hoverinfo: "text",
      hovertext: mine.map((s, j) =>
        s
          ? hover(look(recipes[j]).name, stageText(s.kind), big(s.cell.flops, "FLOP"), `${big(s.cell.samples)} samples`)
          : "",
      ),
    };
  });
}

FIGURES.cost = {
  plotly: true,
  deps: ["algorithm", "beta", "variant"],
  controls: () => [algorithmControl(), betaControl(), ...variantControls()],
  empty: () => (costed().length ? null : "This run counted no floating-point operations."),
  draw(element, width) {
    const recipes = costed();
    const p = panels(width, 0.06);
    const per = recipes.map(rewardPerFlop);
    const best = {
      type: "bar",
      orientation: "h",
      y: recipes.map((_, j) => j),
      x: per.map((v) => (v === null ? null : v * 1e9)),
      xaxis: "x2",
      yaxis: "y2",
      width: 0.56,
      showlegend: false,
      marker: { color: recipes.map((r) => look(r).color) },
      hoverinfo: "text",
      hovertext: recipes.map((r, j) =>
        hover(look(r).name, per[j] === null ? "no result" : `${fixed(per[j] * 1e9)} reward a GFLOP`),
      ),
    };
    const names = recipes.map((r) => short(look(r).name) + "\u2002");
    const yaxis = (anchor, domain, shown) =>
      axis("", {
        domain,
        anchor,
        tickvals: recipes.map((_, j) => j),
        ticktext: shown ? names : names.map(() => ""),
        autorange: "reversed",
        showgrid: false,
        zeroline: false,
      });
    plotly(element, [...costTraces(recipes, 0.42 * (width - 130) * (p.wide ? 1 : 2)), best], {
      barmode: "stack",
      showlegend: false,
      height: (p.wide ? 100 : 210) + recipes.length * (p.wide ? 58 : 92),
      xaxis: axis("floating-point operations", {
        domain: p.x[0],
        anchor: "y",
        ticksuffix: "",
        tickformat: "~s",
        nticks: p.wide ? 6 : 5,
      }),
      yaxis: yaxis("x", p.y[0], true),
      xaxis2: axis("final reward per 10\u2079 operations", { domain: p.x[1], anchor: "y2", nticks: 5 }),
      yaxis2: yaxis("x2", p.y[1], !p.wide),
    });
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "variant"])}. Operations are counted by formula, mean over seeds; ` +
    "every recipe pays for its own sft stage. A stage's shade darkens with its place in the recipe.",
  table: () => ({
    columns: [
      "recipe",
      "stage",
      "operations",
      "samples",
      "reward after the stage",
      "reward per 10\u2079 operations of the recipe",
    ],
    rows: costed().flatMap((r) =>
      stageCosts(r).map(({ kind, cell }, i) => [
        DATA.recipes[r].name,
        stageText(kind),
        cell.flops,
        cell.samples,
        cell.reward.mean,
        i === lastStage(r) ? rewardPerFlop(r) * 1e9 : null,
      ]),
    ),
  }),
};
