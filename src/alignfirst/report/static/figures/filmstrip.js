// Exhibits of mixtures: what each stage does to the distribution, one row of panels a recipe.

function filmPanel(label, model, cell, table, targetMass) {
  const reward = seedMeasure(cell, "reward");
  const mass = cell ? seedMeasure(cell, "target_mass") : targetMass;
  const lost = cell && (pooled(cell.lost) || []).includes(state.seed);
  const numbers = h(
    "dl",
    {},
    h("dt", {}, "reward"),
    h("dd", {}, fixed(reward, 3)),
    h("dt", {}, "target mass"),
    h("dd", {}, fixed(mass, 3)),
  );
  const words = `${label}: reward ${fixed(reward, 3)}, target mass ${fixed(mass, 3)}`;
  const canvas = model
    ? h("canvas", { role: "img", "aria-label": `Density of ${words}` })
    : h("div", { class: "no-panel" }, lost ? "failed: no model" : "no model kept for this choice");
  const panel = h(
    "div",
    { class: "panel" },
    h("div", { class: "panel-name" }, label),
    canvas,
    cell ? numbers : h("p", { class: "truth" }, "the ground truth"),
  );
  return { panel, canvas: model ? canvas : null, model };
}

function filmRow(r, table) {
  const { color, name } = look(r);
  const stages = DATA.recipes[r].stages;
  const panels = [filmPanel("p_star", EXHIBIT.p_star, null, table)];
  stages.forEach((kind, i) => {
    const cell = cellOf(r, i);
    panels.push(filmPanel(stageText(kind), modelOf(cell), cell, table));
  });
  const arrow = () => h("span", { class: "arrow", "aria-hidden": "true" }, "\u2192");
  const nodes = panels.flatMap(({ panel }, i) => (i ? [arrow(), panel] : [panel]));
  const strip = h("div", { class: "strip", tabindex: "0", role: "group", "aria-label": `Stages of ${name}` }, ...nodes);
  return {
    row: h(
      "div",
      { class: "film-row", style: `--recipe:${color};--panels:${panels.length}` },
      h("h3", {}, name),
      strip,
    ),
    panels,
  };
}

EXHIBIT_KINDS.mixture = {
  deps: ["algorithm", "beta", "seed", "variant"],
  controls: () => [
    algorithmControl(),
    betaControl(),
    seedControl(EXHIBIT.seeds || []),
    ...variantControls(),
  ],
  empty: () => (EXHIBIT.models && EXHIBIT.models.length ? null : "This run kept no models to show."),
  draw(element) {
    const table = colourTable();
    const rows = DATA.recipes.map((_, r) => filmRow(r, table));
    const scrolled = [...element.querySelectorAll(".strip")].map((s) => s.scrollLeft);
    element.replaceChildren(...rows.map(({ row }) => row), densityLegend(table));
    element.querySelectorAll(".strip").forEach((s, i) => (s.scrollLeft = scrolled[i] || 0));
    for (const { panels } of rows)
      for (const { canvas, model } of panels) if (canvas) drawDensity(canvas, model, EXHIBIT, table);
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "seed", "variant"])}. Both axes run from ` +
    `${MINUS}${EXHIBIT.half_width} to ${EXHIBIT.half_width}; all panels share one colour scale. ` +
    "The dashed circle is the target region.",
  table: () => ({
    columns: ["recipe", "stage", "reward", "target mass", "target precision (nats)", "target recall (nats)"],
    rows: DATA.recipes.flatMap((recipe, r) =>
      recipe.stages.map((kind, i) => {
        const cell = cellOf(r, i);
        return [
          recipe.name,
          stageText(kind),
          ...["reward", "target_mass", "target_precision", "target_recall"].map((m) => seedMeasure(cell, m)),
        ];
      }),
    ),
  }),
};
