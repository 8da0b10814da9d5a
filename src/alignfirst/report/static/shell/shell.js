// What every page does: theme, navigation, print, and drawing anew when the window changes its width.

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

function startPage() {
  setupTheme(redrawAll);
  setupNav();
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
}
