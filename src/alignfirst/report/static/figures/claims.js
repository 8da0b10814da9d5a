// Every claim judged in every setting: sortable, filterable.

const PAGE = innerWidth < 720 ? 15 : 40;
const claimView = { claim: "", verdict: "", algorithm: "", sort: "order", down: false, all: false };
const WORD = { holds: "holds", reversed: "reversed", undecided: "undecided", insufficient: "too few seeds" };

const claimRows = CLAIMS.map((c, order) => ({
  ...c,
  order,
  info: DATA.claims.claims[c.c],
  algorithm: algorithmText(c.a),
  beta: c.b < 0 ? null : DATA.betas[c.b],
  setting: variantText(c.v),
  noteText: c.note >= 0 ? DATA.claims.notes[c.note] : "",
}));

const effectText = (row) => {
  if (row.estimate === null) return "\u2013";
  const show =
    row.info.scale === "ratio"
      ? (x) => fixed(x, 2)
      : (x) => signed(x, METRIC[row.info.metric] && METRIC[row.info.metric].unit ? 2 : 3);
  const range = row.low === null || row.high === null ? "" : ` [${show(row.low)}, ${show(row.high)}]`;
  return `${show(row.estimate)}${row.info.scale === "ratio" ? "\u00d7" : ""}${range}`;
};
const pText = (p) => (p === null ? "\u2013" : p < 1e-4 ? "< 0.0001" : fixed(p, 4));

const CLAIM_COLUMNS = [
  ["order", "claim", (r) => r.info.statement, (r) => r.order],
  ["algorithm", "algorithm", (r) => r.algorithm, (r) => r.algorithm],
  ["beta", "beta", (r) => (r.beta === null ? "none" : String(r.beta)), (r) => (r.beta === null ? -1 : r.beta)],
  ...(DATA.study.varied.length ? [["setting", "varied", (r) => r.setting, (r) => r.setting]] : []),
  ["estimate", `effect [${DATA.words.level}]`, effectText, (r) => (r.estimate === null ? -Infinity : r.estimate)],
  ["p_holm", "p (Holm)", (r) => pText(r.p_holm), (r) => (r.p_holm === null ? 2 : r.p_holm)],
  ["verdict", "verdict", (r) => WORD[r.verdict], (r) => r.verdict],
  ["noteText", "note", (r) => r.noteText, (r) => r.noteText],
];

function claimsChosen() {
  const { claim, verdict, algorithm, sort, down } = claimView;
  const by = CLAIM_COLUMNS.find(([id]) => id === sort)[3];
  const rows = claimRows.filter(
    (r) =>
      (!claim || r.info.claim === claim) &&
      (!verdict || r.verdict === verdict) &&
      (!algorithm || r.algorithm === algorithm),
  );
  const order = (p, q) => (by(p) < by(q) ? -1 : by(p) > by(q) ? 1 : p.order - q.order);
  return rows.sort((p, q) => (down ? order(q, p) : order(p, q)));
}

function claimFilter(label, key, options, redraw) {
  const id = `control-${++controlCount}`;
  const select = h(
    "select",
    {
      id,
      onchange: () => {
        claimView[key] = select.value;
        claimView.all = false;
        redraw();
      },
    },
    h("option", { value: "" }, "all"),
    ...options.map(([value, text]) => h("option", { value }, text)),
  );
  return h("div", { class: "control" }, h("label", { for: id }, label), select);
}

function claimHead(redraw) {
  return h(
    "thead",
    {},
    h(
      "tr",
      {},
      ...CLAIM_COLUMNS.map(([id, text]) => {
        const active = claimView.sort === id;
        const sortNow = () => {
          claimView.down = active ? !claimView.down : false;
          claimView.sort = id;
          redraw(id);
        };
        return h(
          "th",
          { scope: "col", "aria-sort": active ? (claimView.down ? "descending" : "ascending") : "none" },
          h(
            "button",
            { type: "button", class: "sort", "data-sort": id, onclick: sortNow },
            text,
            h("span", { "aria-hidden": "true" }, active ? (claimView.down ? " \u2193" : " \u2191") : ""),
          ),
        );
      }),
    ),
  );
}

function claimRow(row) {
  return h(
    "tr",
    {},
    ...CLAIM_COLUMNS.map(([id, label, text]) => {
      if (id === "verdict")
        return h("td", { "data-label": label }, h("span", { class: `chip ${row.verdict}` }, text(row)));
      const classes = { estimate: "number", p_holm: "number", beta: "number", noteText: "small" };
      return h("td", { class: classes[id] || null, "data-label": label }, text(row));
    }),
  );
}

function setupClaims() {
  const node = document.getElementById("claims-table");
  if (!node || !CLAIMS.length) return;
  const table = h("div", {
    class: "scroll",
    tabindex: "0",
    role: "region",
    "aria-label": "Claims, judged in every setting",
  });
  const more = h("p", { class: "note", role: "status" });
  const redraw = (focus) => {
    const rows = claimsChosen();
    const shown = claimView.all ? rows : rows.slice(0, PAGE);
    table.replaceChildren(h("table", { class: "claims" }, claimHead(redraw), h("tbody", {}, ...shown.map(claimRow))));
    const rest = rows.length - shown.length;
    more.replaceChildren(
      `${shown.length} of ${rows.length} lines. `,
      rest
        ? h(
            "button",
            {
              type: "button",
              class: "quiet",
              onclick: () => {
                claimView.all = true;
                redraw();
              },
            },
            `Show ${rest} more`,
          )
        : "",
    );
    if (focus) table.querySelector(`[data-sort="${focus}"]`).focus();
  };
  const verdicts = Object.entries(WORD).filter(([v]) => CLAIMS.some((c) => c.verdict === v));
  node.replaceChildren(
    h(
      "div",
      { class: "controls" },
      claimFilter(
        "claim",
        "claim",
        DATA.claims.claims.map((c) => [c.claim, c.statement]),
        redraw,
      ),
      claimFilter("verdict", "verdict", verdicts, redraw),
      claimFilter(
        "algorithm",
        "algorithm",
        DATA.algorithms.map((a) => [a, a]),
        redraw,
      ),
    ),
    table,
    more,
  );
  redraw();
}
