// Exhibits of text: what each stage writes, from the truth over sft to the end of every recipe.

const FEW = 4; // texts of a panel at first
const BEGINNING = [280, 8]; // characters and lines of a long text at first
const WHOLE = [Infinity, 80]; // a text of nothing but line ends must not fill the page

Object.assign(state, { prompt: -1, texts: "few", length: "beginning" });

const TARGET_WORDS = new Set((EXHIBIT.target_words || []).map((w) => w.toLowerCase()));
const WORD_OF_TEXT = /([\p{L}\p{M}\p{N}_'\u2019-]+)/u;
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

// A behaviour's name as people say it; worlds may number them.
const behaviourText = (name) => (/^\d+$/.test(name) ? `behaviour ${name}` : name);
const targetName = () => (EXHIBIT.behaviours || [])[EXHIBIT.target];

// The target in its own colour, the others in shades of one grey.
function behaviourColour(name) {
  if (name === targetName()) return css("--target");
  const others = (EXHIBIT.behaviours || []).filter((b) => b !== targetName());
  const place = others.indexOf(name);
  return fade(css("--muted"), place < 0 ? 0.3 : 0.75 - (0.47 * place) / Math.max(1, others.length - 1));
}

// Mass by behaviour of one model, or of the truth: pairs of name and share, null where nobody knows it.
function massOf(cell) {
  const known = TEXT_MEASURES.filter((m) => m.column === "posterior");
  const mass = known.map((m) => [m.path[0], cell ? seedMeasure(cell, m.id) : null]);
  return mass.length && mass.every(([, v]) => v !== null) ? mass : null;
}

function massOfTruth() {
  const { weights, behaviours } = EXHIBIT;
  if (!weights || !weights.length || !behaviours) return null;
  return behaviours.map((b, k) => [b, weights.reduce((sum, w) => sum + w[k], 0) / weights.length]);
}

function massBar(mass) {
  const words = mass.map(([name, share]) => `${behaviourText(name)} ${fixed(share, 2)}`).join(", ");
  const part = ([name, share]) =>
    h("span", { style: `flex-grow:${Math.max(0, share)};background:${behaviourColour(name)}` });
  return h(
    "div",
    { class: "mass-bar", role: "img", "aria-label": `Mass by behaviour: ${words}`, title: words },
    ...mass.map(part),
  );
}

// A text cut into words, the target's set apart. Every piece is a text node: nothing in it is markup.
function markedWords(text) {
  if (!TARGET_WORDS.size) return [text];
  return text
    .split(WORD_OF_TEXT)
    .filter(Boolean)
    .map((part) => (TARGET_WORDS.has(part.toLowerCase()) ? h("mark", {}, part) : part));
}

// The beginning of a text, and how many characters of it are not shown.
function beginning(text, [mostChars, mostLines]) {
  const chars = [...text];
  let end = 0;
  for (let lines = 1; end < Math.min(chars.length, mostChars); end += 1) {
    if (chars[end] === "\n" && ++lines > mostLines) break;
  }
  return { shown: chars.slice(0, end).join(""), hidden: chars.length - end };
}

function cutMark(hidden) {
  return hidden ? h("span", { class: "cut" }, `${grouped(hidden)} more character${hidden === 1 ? "" : "s"}`) : null;
}

function textBody(text, more) {
  if (!text.length) return h("p", { class: "words none" }, "(an empty text)");
  if (!text.trim())
    return h("p", { class: "words none" }, `(nothing but white space, ${grouped(text.length + more)} characters)`);
  const { shown, hidden } = beginning(text, state.length === "whole" ? WHOLE : BEGINNING);
  const rest = hidden + more;
  return h(
    "p",
    { class: "words" },
    h("span", { dir: "auto" }, ...markedWords(shown), rest ? "\u2026" : null),
    cutMark(rest),
  );
}

// The likeliest behaviour, the posterior of the target where it is not as good as zero, and the reward.
function sampleFacts(samples, i) {
  const at = (name) => (samples[name] ? samples[name][i] : null);
  const behaviour = at("behaviour") === null ? undefined : (EXHIBIT.behaviours || [])[at("behaviour")];
  const posterior = at("target");
  const isTarget = behaviour !== undefined && behaviour === targetName();
  const says = posterior === null ? "" : fixed(posterior, 2);
  const facts = [];
  if (behaviour !== undefined) {
    const text = isTarget && says ? `${behaviourText(behaviour)} ${says}` : behaviourText(behaviour);
    facts.push(
      h("span", { class: isTarget ? "tag target" : "tag", style: `--tag:${behaviourColour(behaviour)}` }, text),
    );
  }
  if (says && !isTarget && (behaviour === undefined || posterior >= 0.005)) facts.push(h("span", {}, `target ${says}`));
  if (at("reward") !== null) facts.push(h("span", {}, `reward ${fixed(at("reward"), 2)}`));
  return facts.length ? h("p", { class: "sample-facts" }, ...facts) : null;
}

// Numbers of the texts that the choice of prompt and count leaves, in their own order.
function chosenTexts(samples) {
  const all = samples.text.map((_, i) => i);
  const here = all.filter((i) => state.prompt < 0 || !samples.prompt || samples.prompt[i] === state.prompt);
  return state.texts === "all" ? here : here.slice(0, FEW);
}

function sampleItem(samples, i) {
  const prompt = samples.prompt && EXHIBIT.prompts.length > 1 ? EXHIBIT.prompts[samples.prompt[i]] : undefined;
  return h(
    "li",
    {},
    prompt === undefined ? null : h("p", { class: "prompt", dir: "auto" }, prompt),
    textBody(samples.text[i], samples.more[i]),
    sampleFacts(samples, i),
  );
}

function panelNumbers(cell, mass) {
  const target = mass ? (mass.find(([name]) => name === targetName()) || [])[1] : undefined;
  const rows = [
    ["reward", cell ? seedMeasure(cell, "reward") : null],
    ["target mass", cell ? seedMeasure(cell, "target_mass") : target],
  ].filter(([, v]) => v !== null && v !== undefined);
  return h("dl", {}, ...rows.flatMap(([name, v]) => [h("dt", {}, name), h("dd", {}, fixed(v, 3))]));
}

function textPanel(label, samples, cell, mass, note) {
  const lost = cell && (pooled(cell.lost) || []).includes(state.seed);
  const texts = samples ? chosenTexts(samples) : [];
  const body = texts.length
    ? h("ol", { class: "samples" }, ...texts.map((i) => sampleItem(samples, i)))
    : h("div", { class: "no-panel" }, lost ? "failed: no model" : "no texts kept for this choice");
  return {
    count: texts.length,
    node: h(
      "div",
      { class: "text-panel", role: "group", "aria-label": label },
      h("p", { class: "panel-name" }, label, note ? h("span", {}, note) : null),
      mass ? massBar(mass) : h("div", {}),
      panelNumbers(cell, mass),
      body,
    ),
  };
}

function textRow(name, color, panels) {
  const rows = 3 + Math.max(1, ...panels.map((p) => p.count)); // name, bar, numbers, then the texts
  const style = `--recipe:${color};--panels:${panels.length};--rows:${rows}`;
  const label = `What ${name} writes, stage by stage`;
  return h(
    "div",
    { class: panels.length > 2 ? "text-row wide" : "text-row", style },
    h("h3", {}, name),
    h("div", { class: "text-strip", tabindex: "0", role: "group", "aria-label": label }, ...panels.map((p) => p.node)),
  );
}

// All recipes start from one sft model, so it stands once, beside the truth.
function startRow() {
  const r = Math.max(
    0,
    DATA.recipes.findIndex((_, i) => modelOf(cellOf(i, 0))),
  );
  const cell = cellOf(r, 0);
  const panels = [textPanel("sft", modelOf(cell), cell, massOf(cell), "where every recipe starts")];
  if (EXHIBIT.truth) panels.unshift(textPanel("p_star", EXHIBIT.truth, null, massOfTruth(), "the ground truth"));
  return textRow("Start", css("--line"), panels);
}

function recipeRow(r) {
  const { color, name } = look(r);
  const panels = DATA.recipes[r].stages.flatMap((kind, i) => {
    const cell = cellOf(r, i);
    return i ? [textPanel(stageText(kind), modelOf(cell), cell, massOf(cell))] : [];
  });
  return textRow(name, color, panels);
}

const everySample = () => [...(EXHIBIT.models || []), ...(EXHIBIT.truth ? [EXHIBIT.truth] : [])];
const mostTexts = () => Math.max(0, ...everySample().map((s) => s.text.length));
const someFact = (name) => everySample().some((s) => s[name]);
const someText = (test) => everySample().some((s) => s.text.some((t, i) => test(t, s.more[i])));

function massLegend() {
  const names = TEXT_MEASURES.filter((m) => m.column === "posterior").map((m) => m.path[0]);
  if (!names.length) return null;
  const item = (name) => h("li", { style: `--bar:${behaviourColour(name)}` }, behaviourText(name));
  return h("ul", { class: "legend mass-legend" }, ...names.map(item));
}

EXHIBIT_KINDS.text = {
  deps: ["algorithm", "beta", "seed", "variant", "prompt", "texts", "length"],
  controls: () => [
    algorithmControl(),
    betaControl(),
    seedControl(EXHIBIT.seeds || []),
    EXHIBIT.prompts.length > 1
      ? selectControl("prompt", "prompt", [[-1, "all, in turn"], ...EXHIBIT.prompts.map((p, i) => [i, p])])
      : null,
    mostTexts() > FEW
      ? segmented("texts", "texts", [
          ["few", `first ${FEW}`],
          ["all", `all ${mostTexts()}`],
        ])
      : null,
    someText((t) => beginning(t, BEGINNING).hidden)
      ? segmented("long texts", "length", [
          ["beginning", "beginning"],
          ["whole", someText((_, more) => more) ? "all that is kept" : "whole"],
        ])
      : null,
    ...variantControls(),
  ],
  empty: () => (EXHIBIT.models && EXHIBIT.models.length ? null : "This run kept no texts to show."),
  draw(element) {
    const rows = [startRow(), ...DATA.recipes.flatMap((recipe, r) => (recipe.stages.length > 1 ? [recipeRow(r)] : []))];
    const scrolled = [...element.querySelectorAll(".text-strip")].map((s) => s.scrollLeft);
    element.replaceChildren(h("div", { class: "text-rows" }, ...rows), massLegend() || "");
    element.querySelectorAll(".text-strip").forEach((s, i) => (s.scrollLeft = scrolled[i] || 0));
  },
  caption() {
    const only = EXHIBIT.prompts.length === 1 && !/^<.*>$/.test(EXHIBIT.prompts[0]);
    const prompt = only ? ` Every text answers the prompt \u201c${EXHIBIT.prompts[0]}\u201d.` : "";
    const bar =
      massOfTruth() || massLegend()
        ? " The bar is the model\u2019s mass by behaviour, over all texts it was measured on."
        : "";
    const facts = someFact("target")
      ? " Below a text: its likeliest behaviour with the posterior of the target, and its reward."
      : "";
    const words = TARGET_WORDS.size ? " Words of the target are coloured." : "";
    return `${selectionText(["algorithm", "beta", "seed", "variant"])}. Texts are the first that were drawn, none was chosen.${prompt}${facts}${words}${bar}`;
  },
  table: () => ({
    columns: ["recipe", "stage", "prompt", "behaviour", "p(target)", "reward", "text", "characters cut off"],
    rows: DATA.recipes.flatMap((recipe, r) =>
      recipe.stages.flatMap((kind, i) => {
        const samples = modelOf(cellOf(r, i));
        if (!samples) return [];
        const at = (name, j) => (samples[name] ? samples[name][j] : null);
        return samples.text.map((text, j) => [
          recipe.name,
          stageText(kind),
          at("prompt", j) === null ? null : EXHIBIT.prompts[at("prompt", j)],
          at("behaviour", j) === null ? null : EXHIBIT.behaviours[at("behaviour", j)],
          at("target", j),
          at("reward", j),
          text,
          samples.more[j],
        ]);
      }),
    ),
  }),
};
