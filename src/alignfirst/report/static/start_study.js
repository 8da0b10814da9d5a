// Start: sensible first choices, then everything is mounted.

// Where order should matter most: the beta that the summary quotes, and an algorithm that has a beta.
function firstChoices() {
  const focus = document.body.dataset.focusBeta;
  const beta = DATA.betas.map(String).indexOf(focus);
  const algorithm = DATA.algorithms.findIndex((_, a) => hasBeta(a));
  const cell = CELLS.find((c) => c.kind === "align" && c.n && c.a === Math.max(algorithm, 0));
  Object.assign(state, {
    algorithm: Math.max(algorithm, 0),
    beta: beta >= 0 ? beta : Math.floor(DATA.betas.length / 2),
    seed: EXHIBIT.seeds && EXHIBIT.seeds.length ? EXHIBIT.seeds[0] : 0,
    variant: cell ? cell.v : 0,
  });
}

// A world says what it can show; a kind this version cannot draw is named, not dropped.
FIGURES.exhibits = EXHIBIT_KINDS[EXHIBIT.kind] || {
  deps: [],
  empty: () =>
    EXHIBIT.kind
      ? `This run shows exhibits of the kind \u201c${EXHIBIT.kind}\u201d, which this page cannot draw.`
      : "This run kept no exhibits.",
};

firstChoices();
setupClaims();
startPage();
