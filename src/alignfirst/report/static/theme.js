// Colours come from the style sheet, so that a figure and the words around it always agree.

const RECIPE_LOOK = {
  "align-distil": ["--ak", "solid", "circle"],
  "distil-align": ["--ka", "solid", "diamond"],
  "distil-align-anchored": ["--r3", "dash", "square"],
  "distil-align-rehearsed": ["--r4", "dot", "triangle-up"],
  "align-distil-align": ["--r5", "dashdot", "star"],
  "align-only": ["--r6", "longdash", "x"],
  "distil-only": ["--r7", "longdashdot", "cross"],
};
const OTHER_LOOKS = [
  ["--r3", "dot", "hexagon"],
  ["--r4", "dash", "pentagon"],
  ["--r5", "solid", "star-diamond"],
];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function look(r) {
  const name = DATA.recipes[r].name;
  const [variable, dash, symbol] = RECIPE_LOOK[name] || OTHER_LOOKS[r % OTHER_LOOKS.length];
  return { name, variable, color: css(variable), dash, symbol };
}

function fade(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

const darkQuery = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (darkQuery.matches ? "dark" : "light")) === "dark";

function axis(title, extra = {}) {
  return {
    title: { text: title, font: { size: 12.5, color: css("--muted") }, standoff: 10 },
    gridcolor: css("--grid"),
    linecolor: css("--line"),
    zerolinecolor: css("--line"),
    zerolinewidth: 1,
    tickfont: { size: 12, color: css("--muted") },
    automargin: true,
    ticks: "",
    fixedrange: matchMedia("(pointer: coarse)").matches,
    ...extra,
  };
}

function layoutOf(extra) {
  return {
    font: { family: css("--sans"), size: 12.5, color: css("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 8, t: 8, b: 8 },
    hovermode: "closest",
    showlegend: true,
    autosize: true,
    hoverlabel: {
      bgcolor: css("--raised"),
      bordercolor: css("--line"),
      font: { family: css("--sans"), size: 12.5, color: css("--ink") },
      align: "left",
    },
    legend: {
      orientation: "h",
      x: 0,
      xanchor: "left",
      y: 1.02,
      yanchor: "bottom",
      font: { size: 12.5 },
      itemclick: "toggle",
      itemdoubleclick: false,
    },
    ...extra,
  };
}

const PLOT_CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset", showTips: false };

// Two panels side by side where there is room, one below the other where there is not.
function panels(width, gap = 0.12) {
  const wide = width >= 680;
  const half = (1 - gap) / 2;
  return wide
    ? {
        wide,
        height: 400,
        x: [
          [0, half],
          [half + gap, 1],
        ],
        y: [
          [0, 1],
          [0, 1],
        ],
      }
    : {
        wide,
        height: 760,
        x: [
          [0, 1],
          [0, 1],
        ],
        y: [
          [0.56, 1],
          [0, 0.42],
        ],
      };
}

// Log-likelihoods have no floor: a compressed axis keeps the good end readable and still shows the worst.
function natsAxis(values, title) {
  const known = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  const top = Math.max(...known),
    bottom = Math.min(...known);
  if (top - bottom < 60) return { map: (v) => v, compressed: false, axis: axis(title) };
  const anchor = Math.ceil(top);
  const map = (v) => (v === null || v === undefined ? null : -Math.log10(1 + (anchor - v) / 3));
  const ticks = [anchor, 0, -3, -10, -30, -100, -300, -1000, -3000, -10000, -30000, -100000].filter(
    (t, i) => (i === 0 || t < anchor - 1) && t > bottom * 1.2 - 5,
  );
  return {
    map,
    compressed: true,
    axis: axis(title, {
      tickvals: ticks.map(map),
      ticktext: ticks.map((t) => String(t).replace("-", MINUS)),
      zeroline: false,
    }),
  };
}

function setupTheme(redraw) {
  const button = document.getElementById("theme");
  const label = () => {
    const next = isDark() ? "light" : "dark";
    button.textContent = next === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to the ${next} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("alignfirst-theme", next);
    } catch {
      // not remembered, still applied
    }
    label();
    redraw();
  });
  darkQuery.addEventListener("change", () => {
    label();
    redraw();
  });
  label();
}
