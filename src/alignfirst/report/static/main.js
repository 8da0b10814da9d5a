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

function setupNav() {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const inView = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target.id);
      const current = [...links.keys()].find((id) => inView.has(id));
      for (const [id, link] of links) {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-20% 0px -60% 0px" },
  );
  for (const id of links.keys()) observer.observe(document.getElementById(id));
}

function setupPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    renderAll();
    opened = [...document.querySelectorAll("details.config:not([open])")];
    opened.forEach((d) => (d.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((d) => (d.open = false)));
}

firstChoices();
setupTheme(redrawAll);
setupNav();
setupClaims();
mountFigures();
setupPrint();

let resizing = 0;
let lastWidth = innerWidth;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    if (innerWidth !== lastWidth) redrawAll();
    lastWidth = innerWidth;
  }, 150);
});
