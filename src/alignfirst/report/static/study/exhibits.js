// A world says what it can show; a kind this version cannot draw is named, not dropped.

const EXHIBIT_KINDS = { mixture: mixtureExhibit, text: textExhibit };

FIGURES.exhibits = EXHIBIT_KINDS[EXHIBIT.kind] || {
  deps: [],
  empty: () =>
    EXHIBIT.kind
      ? `This run shows exhibits of the kind \u201c${EXHIBIT.kind}\u201d, which this page cannot draw.`
      : "This run kept no exhibits.",
};
