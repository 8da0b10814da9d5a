// What each stage costs, and what reward that buys.

function stageCosts(r) {
  return DATA.recipes[r].stages
    .map((kind, i) => ({ kind, cell: cellOf(r, i) }))
    .filter(({ cell }) => cell && cell.flops !== null);
}

const totalFlops = (r) => stageCosts(r).reduce((sum, { cell }) => sum + cell.flops, 0);
const costed = () => recipesWith((r) => totalFlops(r) > 0);

// Where rewards are negative a ratio of the reward itself would call the costlier recipe better: what counts is the gain.
const overSft = () => CELLS.some((c) => c.n && c.reward.mean < 0);
const earnedText = () => (overSft() ? "reward gained over sft" : "final reward");

function earned(r) {
  const [cell, start] = [finalOf(r), cellOf(r, 0)];
  if (!cell || !cell.n || cell.reward.mean === null) return null;
  if (!overSft()) return cell.reward.mean;
  return start && start.n && start.reward.mean !== null ? cell.reward.mean - start.reward.mean : null;
}

const rewardPerFlop = (r) => (earned(r) === null ? null : earned(r) / totalFlops(r));

// Operations that the reward is counted by: 10^9, or more where recipes of this world cost more than a mixture's.
function flopUnit() {
  const most = Math.max(...costed().map(totalFlops), 1);
  const power = Math.max(9, 3 * Math.round(Math.log10(most) / 3));
  const digits = [...String(power)].map((d) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[d]);
  return { scale: 10 ** power, text: `10${digits.join("")}` };
}

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
    const unit = flopUnit();
    const best = {
      type: "bar",
      orientation: "h",
      y: recipes.map((_, j) => j),
      x: per.map((v) => (v === null ? null : v * unit.scale)),
      xaxis: "x2",
      yaxis: "y2",
      width: 0.56,
      showlegend: false,
      marker: { color: recipes.map((r) => look(r).color) },
      hoverinfo: "text",
      hovertext: recipes.map((r, j) =>
        hover(
          look(r).name,
          per[j] === null ? "no result" : `${earnedText()} per ${unit.text} operations: ${fixed(per[j] * unit.scale)}`,
        ),
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
      xaxis2: axis(`${earnedText()} per ${unit.text} operations`, { domain: p.x[1], anchor: "y2", nticks: 5 }),
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
      `${earnedText()} per ${flopUnit().text} operations of the recipe`,
    ],
    rows: costed().flatMap((r) =>
      stageCosts(r).map(({ kind, cell }, i) => [
        DATA.recipes[r].name,
        stageText(kind),
        cell.flops,
        cell.samples,
        cell.reward.mean,
        i === lastStage(r) && earned(r) !== null ? rewardPerFlop(r) * flopUnit().scale : null,
      ]),
    ),
  }),
};
