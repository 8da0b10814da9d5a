"use strict";
// Before the first paint: the reader's own choice of theme, where there is one.
try {
  const chosen = localStorage.getItem("alignfirst-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // a browser may refuse storage to a local file: the system's theme then holds
}
document.documentElement.classList.add("js");
