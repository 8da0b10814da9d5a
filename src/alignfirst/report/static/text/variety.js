// What only text has: variety and coverage from stage to stage, mass by behaviour, and figures by prompt.

const measuresOf = (column) => TEXT_MEASURES.filter((m) => m.column === column);
const textMean = (cell, m) => (cell && cell.n ? cell[m.id].mean : null);

// One panel a measure; of entropy the one per token, where there is one.
function varietyMeasures() {
  const entropy = [...measuresOf("entropy_per_token"), ...measuresOf("entropy")].slice(0, 1);
  return [...entropy, ...measuresOf("repetition"), ...measuresOf("distinct")];
}

const varietyRecipes = () => DATA.recipes.map((recipe, r) => ({ r, cells: recipe.stages.map((_, i) => cellOf(r, i)) }));

function seedLines(cells, id) {
  const seeds = new Set(cells.flatMap((c) => (c && pooled(c.seeds)) || []));
  const x = [];
  const y = [];
  for (const seed of seeds) {
    cells.forEach((c, i) => {
      const value = c ? valuesBySeed(c, id).get(seed) : undefined;
      if (value === null || value === undefined) return;
      x.push(i);
      y.push(value);
    });
    x.push(null);
    y.push(null);
  }
  return { x, y };
}

function stepTraces({ r, cells }, measure, suffix, showlegend) {
  const { color, symbol, name } = look(r);
  const place = { xaxis: `x${suffix}`, yaxis: `y${suffix}`, legendgroup: name, type: "scatter" };
  const known = cells.flatMap((c, i) => (textMean(c, measure) === null ? [] : [i]));
  return [
    {
      ...place,
      ...seedLines(cells, measure.id),
      mode: "lines",
      line: { color: fade(color, isDark() ? 0.34 : 0.26), width: 1 },
      hoverinfo: "skip",
      showlegend: false,
    },
    {
      ...place,
      mode: "lines+markers",
      name: short(name),
      showlegend,
      x: known,
      y: known.map((i) => textMean(cells[i], measure)),
      line: { color, width: 2.25 },
      marker: {
        symbol,
        size: known.map((i) => (i === cells.length - 1 ? 11 : 7)),
        color: known.map((i) => (i === cells.length - 1 ? color : css("--surface"))),
        opacity: 1,
        line: { color, width: 2 },
      },
      cliponaxis: false,
      hoverinfo: "text",
      hovertext: known.map((i) =>
        hover(
          `${name}, ${stageText(cells[i].kind)}`,
          `${measure.label} ${fixed(textMean(cells[i], measure))}`,
          `${cells[i].n} seeds`,
        ),
      ),
    },
  ];
}

// Share of target text that a model would show in N draws: sft, then where every recipe ends.
function coverageTraces(suffix) {
  const ns = measuresOf("coverage");
  const place = { xaxis: `x${suffix}`, yaxis: `y${suffix}`, type: "scatter", mode: "lines+markers", cliponaxis: false };
  const line = (cell, name, legendgroup, style, showlegend) => ({
    ...place,
    name: short(name),
    legendgroup,
    showlegend,
    x: ns.map((_, k) => k),
    y: ns.map((m) => textMean(cell, m)),
    hoverinfo: "text",
    hovertext: ns.map((m) => hover(name, `at N = ${m.path[0]}: ${fixed(textMean(cell, m))} of target text`)),
    ...style,
  });
  const sft = cellOf(0, 0);
  const grey = css("--muted");
  const start = line(
    sft,
    "sft",
    "sft",
    { line: { color: grey, width: 1.75, dash: "dot" }, marker: { color: grey, size: 5 } },
    true,
  );
  const ends = varietyRecipes().map(({ r, cells }) => {
    const { color, symbol, name } = look(r);
    const style = { line: { color, width: 2.25 }, marker: { color, size: 8, symbol } };
    return line(cells[cells.length - 1], name, name, style, false);
  });
  return [start, ...ends];
}

FIGURES.variety = {
  plotly: true,
  deps: ["algorithm", "beta", "variant"],
  controls: () => [algorithmControl(), betaControl(), ...variantControls()],
  empty: () => (CELLS.some((c) => c.n) ? null : "No cell of this run has a result."),
  draw(element, width) {
    const measures = varietyMeasures();
    const covers = measuresOf("coverage").length > 1;
    const grid = panelGrid(width, measures.length + covers);
    const depth = Math.max(...DATA.recipes.map((r) => r.stages.length));
    const steps = Array.from({ length: depth }, (_, i) => (i ? `stage ${i}` : "sft"));
    const traces = measures.flatMap((m, k) =>
      varietyRecipes().flatMap((row) => stepTraces(row, m, k ? String(k + 1) : "", k === 0)),
    );
    const panels = measures.map((m) => ({
      title: m.label + (m.unit === "nats" ? ", nats" : ""),
      xaxis: { tickvals: steps.map((_, i) => i), ticktext: steps, range: [-0.25, depth - 0.75], showgrid: false },
      yaxis: { rangemode: m.unit === "share" ? "tozero" : "normal" },
    }));
    if (covers) {
      traces.push(...coverageTraces(measures.length ? String(measures.length + 1) : ""));
      const ns = measuresOf("coverage").map((m) => esc(m.path[0]));
      panels.push({
        title: "coverage: target text within log N nats",
        xaxis: {
          tickvals: ns.map((_, k) => k),
          ticktext: ns.map((n) => `N\u202f=\u202f${n}`),
          range: [-0.25, ns.length - 0.75],
        },
        yaxis: { range: [-0.04, 1.04] },
      });
    }
    plotly(element, traces, { ...gridLayout(grid, panels), legend: gridLegend(grid) });
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "variant"])}. From sft over stage 1 to the last stage (filled); bold: mean ` +
    "over seeds, faint: single seeds. Less entropy, fewer distinct n-grams and more repetition mean less variety." +
    (measuresOf("coverage").length > 1
      ? " Coverage: share of target text that the model gives at least 1/N of its true probability, at the end of each recipe."
      : ""),
  table() {
    const measures = [
      ...measuresOf("entropy"),
      ...varietyMeasures().filter((m) => m.column !== "entropy"),
      ...measuresOf("coverage"),
    ];
    return {
      columns: ["recipe", "stage", "seeds", ...measures.map((m) => m.label)],
      rows: varietyRecipes().flatMap(({ r, cells }) =>
        cells.map((cell, i) => [
          DATA.recipes[r].name,
          stageText(DATA.recipes[r].stages[i]),
          cell ? cell.n : 0,
          ...measures.map((m) => textMean(cell, m)),
        ]),
      ),
    };
  },
};

// Mass by behaviour: the truth, sft, then every stage of every recipe, one bar each.
function behaviourRows() {
  const means = (cell) => measuresOf("posterior").map((m) => textMean(cell, m));
  const named = new Map(massOfTruth() || []);
  const truth = measuresOf("posterior").map((m) => (named.has(m.path[0]) ? named.get(m.path[0]) : null));
  const rows = named.size ? [{ label: "p_star", color: css("--ink"), mass: truth, n: null }] : [];
  rows.push({ label: "sft", color: css("--ink"), mass: means(cellOf(0, 0)), n: (cellOf(0, 0) || {}).n });
  DATA.recipes.forEach((recipe, r) =>
    recipe.stages.forEach((kind, i) => {
      const cell = cellOf(r, i);
      if (i)
        rows.push({
          label: `${recipe.name}: ${stageText(kind)}`,
          color: look(r).color,
          mass: means(cell),
          n: cell && cell.n,
        });
    }),
  );
  return rows;
}

FIGURES.behaviours = {
  plotly: true,
  deps: ["algorithm", "beta", "variant"],
  controls: () => [algorithmControl(), betaControl(), ...variantControls()],
  empty: () =>
    behaviourRows().some((row) => row.mass.some((v) => v !== null)) ? null : "No cell of this choice has a result.",
  draw(element, width) {
    const rows = behaviourRows();
    const narrow = width < 620;
    const traces = measuresOf("posterior").map((m, k) => ({
      type: "bar",
      orientation: "h",
      name: short(behaviourText(m.path[0])),
      y: rows.map((_, j) => j),
      x: rows.map((row) => row.mass[k]),
      width: narrow ? 0.42 : 0.62,
      marker: { color: behaviourColour(m.path[0]), line: { color: css("--surface"), width: 1 } },
      hoverinfo: "text",
      hovertext: rows.map((row) =>
        hover(row.label, `${behaviourText(m.path[0])}: ${fixed(row.mass[k])}`, row.n === null ? "" : `${row.n} seeds`),
      ),
    }));
    const label = (row, j) => ({
      text: short(row.label, 44),
      x: 0,
      y: j,
      xref: "paper",
      xanchor: narrow ? "left" : "right",
      xshift: narrow ? 0 : -8,
      yshift: narrow ? 20 : 0,
      showarrow: false,
      font: { size: 12.5, color: row.color },
    });
    plotly(element, traces, {
      barmode: "stack",
      height: 100 + rows.length * (narrow ? 50 : 36),
      margin: { l: narrow ? 8 : 210, r: 8, t: 8, b: 8 },
      annotations: rows.map(label),
      legend: {
        orientation: "h",
        x: 0,
        y: 1,
        yanchor: "bottom",
        xanchor: "left",
        traceorder: "normal",
        font: { size: 12 },
      },
      xaxis: axis("share of what the model writes", { range: [0, 1], zeroline: false }),
      yaxis: axis("", {
        range: [rows.length - 0.45, narrow ? -0.85 : -0.6],
        tickvals: [],
        showgrid: false,
        zeroline: false,
      }),
    });
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "variant"])}. Exact posterior of each behaviour, mean over the texts a model was measured on ` +
    "and over seeds. What distilling leaves of the target, aligning can amplify; what it drops has to be found again.",
  table: () => ({
    columns: ["model", "seeds", ...measuresOf("posterior").map((m) => behaviourText(m.path[0]))],
    rows: behaviourRows().map((row) => [row.label, row.n, ...row.mass]),
  }),
};

// Several prompts: each has its own weight of the target, so its own recall.
const promptMeasures = () => [...new Map(measuresOf("by_prompt").map((m) => [m.path[1], m.label])).entries()];
const promptKeys = () => [...new Set(measuresOf("by_prompt").map((m) => m.path[0]))];
Object.assign(state, { promptMeasure: (promptMeasures()[0] || [""])[0] });

const byPrompt = (key) => measuresOf("by_prompt").find((m) => m.path[0] === key && m.path[1] === state.promptMeasure);

function promptLabel(key) {
  const k = Number(key) - 1;
  const prompt = EXHIBIT.prompts && EXHIBIT.prompts[k] !== undefined ? EXHIBIT.prompts[k] : `prompt ${key}`;
  const weights = EXHIBIT.weights && EXHIBIT.weights[k];
  return [prompt, weights ? `target ${Number((100 * weights[EXHIBIT.target]).toPrecision(3))} %` : ""];
}

// sft, then where every recipe ends.
const promptRows = () => [
  { name: "sft", color: css("--muted"), symbol: "circle-open", cell: cellOf(0, 0) },
  ...DATA.recipes.map((_, r) => ({ ...look(r), cell: finalOf(r) })),
];

function promptTraces(row, k, count, keys) {
  const width = SPREAD / count;
  const centre = (j) => j - SPREAD / 2 + (k + 0.5) * width;
  const [dots, bars] = [
    { x: [], y: [], text: [] },
    { x: [], y: [], text: [] },
  ];
  const digits = byPrompt(keys[0]).unit === "nats" ? 2 : 3;
  keys.forEach((key, j) => {
    const measure = byPrompt(key);
    const mean = measure ? textMean(row.cell, measure) : null;
    if (mean === null) return;
    for (const [seed, value] of valuesBySeed(row.cell, measure.id)) {
      if (value === null || value === undefined) continue;
      dots.x.push(centre(j) + jitter(seed, width * 0.7));
      dots.y.push(value);
      dots.text.push(
        hover(`${row.name}, seed ${seed}`, promptLabel(key)[0], `${measure.label} ${fixed(value, digits)}`),
      );
    }
    const note = hover(
      `${row.name}, mean of ${row.cell.n} seeds`,
      promptLabel(key)[0],
      `${measure.label} ${fixed(mean, digits)}`,
    );
    bars.x.push(centre(j) - width * 0.42, centre(j) + width * 0.42, null);
    bars.y.push(mean, mean, null);
    bars.text.push(note, note, "");
  });
  const shared = { type: "scatter", hoverinfo: "text", legendgroup: row.name };
  return [
    {
      ...shared,
      x: dots.x,
      y: dots.y,
      hovertext: dots.text,
      mode: "markers",
      name: short(row.name),
      marker: { color: fade(row.color, 0.7), size: 6.5, symbol: row.symbol, opacity: 1 },
    },
    {
      ...shared,
      x: bars.x,
      y: bars.y,
      hovertext: bars.text,
      mode: "lines",
      line: { color: row.color, width: 2.5 },
      showlegend: false,
    },
  ];
}

FIGURES.prompts = {
  plotly: true,
  deps: ["algorithm", "beta", "variant", "promptMeasure"],
  controls: () => [
    algorithmControl(),
    betaControl(),
    selectControl("measure", "promptMeasure", promptMeasures(), { number: false }),
    ...variantControls(),
  ],
  empty: () => (promptRows().some(({ cell }) => cell && cell.n) ? null : "No cell of this choice has a result."),
  draw(element, width) {
    const keys = promptKeys();
    const rows = promptRows();
    const tick = (key) =>
      promptLabel(key)
        .filter(Boolean)
        .map((t) => short(t, width < 560 ? 12 : 22))
        .join("<br>");
    plotly(
      element,
      rows.flatMap((row, k) => promptTraces(row, k, rows.length, keys)),
      {
        height: width < 560 ? 400 : 430,
        xaxis: axis("", {
          tickvals: keys.map((_, j) => j),
          ticktext: keys.map(tick),
          range: [-0.5, keys.length - 0.5],
          showgrid: false,
          zeroline: false,
        }),
        yaxis: axis(promptMeasures().find(([id]) => id === state.promptMeasure)[1], { zeroline: false }),
      },
    );
  },
  caption: () =>
    `${selectionText(["algorithm", "beta", "variant"])}. Under each prompt: sft, then the last stage of each recipe. A dot is a seed, a bar the mean.`,
  table: () => ({
    columns: ["prompt", "model", "seeds", ...promptMeasures().map(([, label]) => label)],
    rows: promptKeys().flatMap((key) =>
      promptRows().map(({ name, cell }) => [
        promptLabel(key).filter(Boolean).join(", "),
        name,
        cell ? cell.n : 0,
        ...promptMeasures().map(([id]) => {
          const m = measuresOf("by_prompt").find((x) => x.path[0] === key && x.path[1] === id);
          return m ? textMean(cell, m) : null;
        }),
      ]),
    ),
  }),
};
