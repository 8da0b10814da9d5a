// Preference rows: chosen against rejected, what distilling cost, and the worst of them with their tokens.

const ROWS = decode(DATA.rows);
const LISTED = DATA.listed.map((row, rank) => ({ ...row, rank, search: [row.line, row.prompt || "", row.text || ""].join(" ").toLowerCase() }));
const TEXT_OF = new Map(LISTED.map((row) => [row.line, row.text]));

function rowHover(row, ...lines) {
  const text = TEXT_OF.get(row.line);
  return hover(`line ${row.line}`, ...lines, text ? (text.length > 60 ? `${text.slice(0, 59)}\u2026` : text) : "");
}

const thinned = () =>
  ROWS.length < DATA.total ? ` Drawn are ${countText(ROWS.length)} of ${countText(DATA.total)} rows, taken evenly.` : "";

const PAIRED = ROWS.filter((r) => known(r.logp_chosen) && known(r.logp_rejected));

function scatterTrace(name, rows, variable, symbol) {
  const color = css(variable);
  return {
    type: "scatter",
    mode: "markers",
    name: `${name} (${rows.length})`,
    x: rows.map((r) => r.logp_chosen),
    y: rows.map((r) => r.logp_rejected),
    marker: { color: fade(color, rows.length > 800 ? 0.4 : 0.65), symbol, size: rows.length > 800 ? 5 : 8, line: { width: 0 } },
    hoverinfo: "text",
    hovertext: rows.map((r) =>
      rowHover(r, `chosen ${fixed(r.logp_chosen, 1)}, rejected ${fixed(r.logp_rejected, 1)} nats`, `margin ${signed(r.margin, 1)}`),
    ),
  };
}

FIGURES.scatter = {
  plotly: true,
  deps: [],
  empty: () => (PAIRED.length ? null : "No row has both log-probabilities."),
  draw(element, width) {
    const values = PAIRED.flatMap((r) => [r.logp_chosen, r.logp_rejected]);
    const low = values.reduce((a, b) => Math.min(a, b)),
      high = values.reduce((a, b) => Math.max(a, b));
    const pad = 0.04 * (high - low || 1);
    const range = [low - pad, high + pad];
    const traces = [
      scatterTrace("chosen likelier", PAIRED.filter((r) => r.margin > 0), "--first", "circle"),
      scatterTrace("rejected likelier", PAIRED.filter((r) => !(r.margin > 0)), "--second", "diamond"),
    ];
    plotly(element, traces.filter((t) => t.x.length), {
      height: Math.min(560, Math.max(340, width * 0.7)),
      shapes: [
        {
          type: "line", xref: "x", yref: "y", x0: range[0], y0: range[0], x1: range[1], y1: range[1], layer: "below",
          line: { color: css("--muted"), width: 1.25, dash: "dash" },
        },
      ],
      xaxis: axis("log q(chosen), nats", { range, zeroline: false }),
      yaxis: axis("log q(rejected), nats", { range, zeroline: false }),
    });
  },
  caption: () =>
    `One point a preference row${ROWS.length < DATA.total ? "" : `, ${countText(PAIRED.length)} in all`}; log-probabilities of whole answers under the reference, so longer ` +
    `answers lie further down and left. On the dashed line both are equally likely.${thinned()}`,
  table: () => ({
    columns: ["line", "log q(chosen)", "log q(rejected)", "margin", "typicality", "rarest step", "at token"],
    rows: ROWS.map((r) => [r.line, r.logp_chosen, r.logp_rejected, r.margin, r.typicality, r.rarest_step, r.rarest_at]),
  }),
};

const PER = { token: ["cost_per_token_", "nats a token"], answer: ["cost_", "nats an answer"] };
const HAS_PER_TOKEN = ROWS.some((r) => known(r.cost_per_token_chosen) || known(r.cost_per_token_rejected));
const BINS = 40;
const SIDES = [
  ["chosen", "--first"],
  ["rejected", "--second"],
];

const costsOf = (side) => ROWS.map((r) => r[PER[state.per][0] + side]).filter(known);

// Bins that hold all but a hundredth; the outermost take what lies beyond, so that one outlier flattens nothing.
function costBins() {
  const all = SIDES.flatMap(([side]) => costsOf(side)).sort((a, b) => a - b);
  const at = (share) => all[Math.min(all.length - 1, Math.floor(share * all.length))];
  let [low, high] = all.length > 200 ? [at(0.005), at(0.995)] : [all[0], all[all.length - 1]];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const bins = Math.max(8, Math.min(BINS, Math.ceil(2 * Math.sqrt(all.length))));
  return { low, width: (high - low) / bins, bins };
}

// As the audit has it, over all rows.
const meanOf = (side) => (DATA.means[PER[state.per][0] + side] || {}).value;

function costTrace([side, variable], { low, width, bins }) {
  const counts = Array(bins).fill(0);
  const costs = costsOf(side);
  for (const x of costs) counts[Math.max(0, Math.min(bins - 1, Math.floor((x - low) / width)))]++;
  const color = css(variable);
  return {
    type: "bar",
    x: counts.map((_, i) => low + (i + 0.5) * width),
    y: counts,
    width: Array(bins).fill(width * 0.96),
    name: `${side}, mean ${signed(meanOf(side), 2)}`,
    marker: { color: fade(color, 0.42), line: { color, width: 1.25 } },
    hoverinfo: "text",
    hovertext: counts.map((n, i) => {
      const place = i === 0 ? `below ${fixed(low + width, 2)}` : i === bins - 1 ? `from ${fixed(low + i * width, 2)} on` : `${fixed(low + i * width, 2)} to ${fixed(low + (i + 1) * width, 2)}`;
      return hover(side, `${n} rows`, place);
    }),
  };
}

if (!HAS_PER_TOKEN) state.per = "answer";

FIGURES.cost = {
  plotly: true,
  deps: ["per"],
  controls: () => [
    HAS_PER_TOKEN
      ? segmented("measured", "per", [
          ["token", "per token"],
          ["answer", "whole answer"],
        ])
      : null,
  ],
  empty: () => (SIDES.some(([side]) => costsOf(side).length) ? null : "No row is scored by both models."),
  draw(element) {
    const bins = costBins();
    plotly(element, SIDES.filter(([side]) => costsOf(side).length).map((s) => costTrace(s, bins)), {
      height: 400,
      barmode: "overlay",
      bargap: 0,
      shapes: [vertical(0, css("--ink"), { dash: "solid", width: 1.25 })],
      xaxis: axis(`log q \u2212 log p, ${PER[state.per][1]}`, { zeroline: false }),
      yaxis: axis("rows", { rangemode: "tozero" }),
    });
  },
  caption() {
    const w = costsOf("chosen");
    const behind = w.filter((x) => x < 0).length;
    return (
      `Rows by what the reference gained or lost against the teacher, ${PER[state.per][1]}. On ${countText(behind)} of ${countText(w.length)} chosen ` +
      `answers it is behind (left of 0).${ROWS.length > 100 ? " The outermost bars take what lies beyond." : ""}${thinned()}`
    );
  },
  table: () => ({
    columns: ["line", "chosen", "rejected", "chosen per token", "rejected per token"],
    rows: ROWS.map((r) => [r.line, r.cost_chosen, r.cost_rejected, r.cost_per_token_chosen, r.cost_per_token_rejected]),
  }),
};

// ---- the list of worst rows

const LIST_STEP = 10;
const rowView = { search: "", sort: "rank", shown: LIST_STEP };
const SORTS = [
  ["rank", "worst first", (r) => r.rank],
  ["cost", "lost against the teacher", (r) => r.cost_chosen],
  ["margin", "margin", (r) => r.margin],
  ["logp", "log q(chosen)", (r) => r.logp_chosen],
  ["rarest", "least likely token", (r) => r.rarest_step],
  ["line", "line", (r) => r.line],
].filter(([, , by]) => LISTED.some((r) => known(by(r))));

function rowsChosen() {
  const words = rowView.search.toLowerCase().split(/\s+/).filter(Boolean);
  const by = SORTS.find(([id]) => id === rowView.sort)[2];
  const value = (r) => (known(by(r)) ? by(r) : Infinity);
  return LISTED.filter((r) => words.every((w) => r.search.includes(w))).sort(
    (p, q) => value(p) - value(q) || p.rank - q.rank,
  );
}

const tokenTitle = (q, p) =>
  known(p) ? `log q ${fixed(q, 2)}, log p ${fixed(p, 2)}, difference ${signed(q - p, 2)}` : `log q ${fixed(q, 2)}`;

const COSTLIEST = 8;

// Space before and after a token is not marked; a token that is nothing else is shown by a sign.
function mark(text, attributes) {
  const body = text.trim();
  if (!body) return [h("mark", attributes, signOf(text)), text];
  const at = text.indexOf(body);
  return [text.slice(0, at), h("mark", attributes, body), text.slice(at + body.length)];
}

const signOf = (text) => (text.includes("\n") ? "\u21b5" : text ? "\u2423" : "part of a character");

// Every token in its place, where the audit kept them all.
function markedTokens([texts, q, p]) {
  const cost = q.map((x, i) => (p ? x - p[i] : x));
  const order = cost.map((_, i) => i).sort((a, b) => cost[a] - cost[b]);
  const top = new Set(order.slice(0, COSTLIEST).filter((i) => cost[i] < -0.5));
  const dear = new Set(order.slice(0, Math.ceil(cost.length / 10)).filter((i) => cost[i] < -2));
  return texts.flatMap((text, i) => {
    if (!text || (!top.has(i) && !dear.has(i))) return text;
    return mark(text, { class: top.has(i) ? null : "dear", title: tokenTitle(q[i], p ? p[i] : null) });
  });
}

// Else a costly token is marked where there is one place only that it can be.
function markedText(text, costliest) {
  const spots = [];
  for (const [, whole, q, p] of costliest) {
    const token = (whole || "").trim();
    const at = token ? text.indexOf(token) : -1;
    const sure = at >= 0 && text.indexOf(token, at + 1) < 0;
    if (sure && !spots.some((s) => at < s.end && s.at < at + token.length))
      spots.push({ at, end: at + token.length, title: tokenTitle(q, p) });
  }
  spots.sort((a, b) => a.at - b.at);
  const parts = [];
  let from = 0;
  for (const { at, end, title } of spots) {
    parts.push(text.slice(from, at), h("mark", { title }, text.slice(at, end)));
    from = end;
  }
  return [...parts, text.slice(from)];
}

function answerNode(row) {
  if (!row.text && !row.tokens) return h("p", { class: "tokens" }, "The text of this answer is not in the audit's files.");
  const parts = row.tokens ? markedTokens(row.tokens) : markedText(row.text, row.costliest);
  const long = (row.text || "").length > 700 || row.cut;
  return h(
    "p",
    { class: "answer", tabindex: long ? "0" : null, role: long ? "region" : null, "aria-label": long ? `Answer of line ${row.line}` : null },
    ...parts,
    row.cut ? h("span", { class: "muted" }, " \u2026 (cut here; the whole is in the audit's files)") : null,
  );
}

// Nats with one place, or a thousand and more of them with none.
const natsText = (x) => (Math.abs(x) >= 1000 ? countText(x).replace("-", MINUS) : fixed(x, 1));
const signedNats = (x) => (x > 0 ? `+${natsText(x)}` : natsText(x));

const costText = (row) =>
  signedNats(row.cost_chosen) + (known(row.cost_per_token_chosen) ? ` (${signed(row.cost_per_token_chosen, 3)} a token)` : "");

function rowNode(row) {
  const pair = (name, text) => h("div", {}, h("dt", {}, name), h("dd", {}, text));
  const numbers = [
    known(row.cost_chosen) && pair(`log q ${MINUS} log p`, costText(row)),
    known(row.logp_chosen) && pair("log q(chosen)", natsText(row.logp_chosen)),
    known(row.margin) && pair("margin", signedNats(row.margin)),
    known(row.typicality) && pair("surprisal above its own", signed(row.typicality, 2)),
    known(row.rarest_step) && pair("least likely token", `${fixed(row.rarest_step, 1)}${known(row.rarest_at) ? `, the ${row.rarest_at + 1}${ordinal(row.rarest_at + 1)}` : ""}`),
  ].filter(Boolean);
  const tokens = row.costliest.flatMap(([at, text, q, p], i) => [
    i ? ", " : "Costliest tokens: ",
    h("mark", { title: tokenTitle(q, p) }, text.trim() || signOf(text)),
    ` ${known(p) ? signed(q - p, 1) : fixed(q, 1)}${known(at) ? ` (${at + 1}${ordinal(at + 1)})` : ""}`,
  ]);
  return h(
    "li",
    {},
    h("h3", {}, `Line ${row.line}`),
    h("dl", {}, ...numbers),
    row.prompt ? h("p", { class: "prompt" }, row.prompt) : null,
    answerNode(row),
    tokens.length ? h("p", { class: "tokens" }, ...tokens, ". In nats.") : null,
  );
}

function ordinal(n) {
  const tens = n % 100;
  return tens > 10 && tens < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] || "th";
}

function setupRows() {
  const node = document.getElementById("worst-rows");
  if (!node || !LISTED.length) return;
  const list = h("ol", { class: "worst" });
  const status = h("p", { class: "note", role: "status" });
  const more = h("button", {
    type: "button",
    class: "quiet",
    onclick: () => {
      rowView.shown += 5 * LIST_STEP;
      redraw();
    },
  });
  const redraw = () => {
    const rows = rowsChosen();
    const shown = rows.slice(0, rowView.shown);
    list.replaceChildren(...shown.map(rowNode));
    const rest = rows.length - shown.length;
    const of = LISTED.length < DATA.total ? ` The list holds the worst ${countText(LISTED.length)} of ${countText(DATA.total)} rows.` : "";
    status.textContent = rows.length ? `${countText(shown.length)} of ${countText(rows.length)} rows.${of}` : `No row has all of these words.${of}`;
    more.textContent = `Show ${Math.min(rest, 5 * LIST_STEP)} more`;
    more.hidden = !rest;
  };
  const search = h("input", {
    type: "search",
    id: "rows-search",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      Object.assign(rowView, { search: search.value, shown: LIST_STEP });
      redraw();
    },
  });
  const sort = h(
    "select",
    { id: "rows-sort", onchange: () => { Object.assign(rowView, { sort: sort.value, shown: LIST_STEP }); redraw(); } },
    ...SORTS.map(([id, text]) => h("option", { value: id }, text)),
  );
  const control = (id, label, field) => h("div", { class: "control" }, h("label", { for: id }, label), field);
  node.replaceChildren(
    h("div", { class: "controls" }, control("rows-search", "words in the row, or a line", search), control("rows-sort", "sorted by", sort)),
    status,
    list,
    h("p", { class: "save" }, more),
  );
  redraw();
}
