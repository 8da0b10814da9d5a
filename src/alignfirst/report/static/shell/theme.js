// Colours come from the style sheet, so that a figure and the words around it always agree.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The look of a recipe: its colour in the theme that is on, its dash and its mark.
function look(r) {
  const { name, look } = DATA.recipes[r];
  return { ...look, name, color: themed(look) };
}

function fade(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

const darkQuery = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (darkQuery.matches ? "dark" : "light")) === "dark";

const themed = ({ light, dark }) => (isDark() ? dark : light);

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

// Small panels of one height, as many beside each other as there is room for, read row by row.
function panelGrid(width, count, { widest = 300, most = 3, height = 230 } = {}) {
  const columns = Math.max(1, Math.min(most, count, Math.floor(width / widest)));
  const rows = Math.ceil(count / columns);
  const [gapX, gapY] = [58 / width, 74 / (rows * height)];
  const [w, t] = [(1 - gapX * (columns - 1)) / columns, (1 - gapY * (rows - 1)) / rows];
  return {
    columns,
    height: rows * height + 70,
    at: (i) => {
      const [column, row] = [i % columns, Math.floor(i / columns)];
      const top = 1 - row * (t + gapY);
      return { x: [column * (w + gapX), column * (w + gapX) + w], y: [Math.max(0, top - t), top] };
    },
  };
}

// Its legend stands above the headings of the first row.
const gridLegend = (grid) => ({
  orientation: "h",
  x: 0,
  xanchor: "left",
  y: 1 + 30 / grid.height,
  yanchor: "bottom",
  font: { size: 12.5 },
  itemclick: "toggle",
  itemdoubleclick: false,
});

// Axes and a heading of every panel of such a grid: `panels` are { title, xaxis, yaxis }.
function gridLayout(grid, panels) {
  const layout = { height: grid.height, annotations: [] };
  panels.forEach(({ title, xaxis, yaxis }, i) => {
    const { x, y } = grid.at(i);
    const n = i ? String(i + 1) : "";
    layout[`xaxis${n}`] = axis("", { domain: x, anchor: `y${n}`, zeroline: false, ...xaxis });
    layout[`yaxis${n}`] = axis("", {
      domain: y,
      anchor: `x${n}`,
      zeroline: false,
      nticks: 5,
      exponentformat: "power",
      ...yaxis,
    });
    layout.annotations.push({
      text: short(title, 48),
      x: x[0],
      y: y[1],
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      yshift: 5,
      showarrow: false,
      font: { size: 12.5, color: css("--ink") },
    });
  });
  return layout;
}

// Log-likelihoods have no floor: a compressed axis keeps the good end readable and still shows the worst.
function natsAxis(values, title) {
  const known = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  const top = Math.max(...known),
    bottom = Math.min(...known);
  if (top - bottom < 60) return { map: (v) => v, compressed: false, axis: axis(title) };
  const anchor = Math.ceil(top);
  const map = (v) => (v === null || v === undefined ? null : -Math.log10(1 + (anchor - v) / 3));
  const fits = (t, i) => (i === 0 || t < anchor - 1) && t > bottom * 1.2 - 5;
  const coarse = [anchor, 0, -3, -10, -30, -100, -300, -1000, -3000, -10000, -30000, -100000].filter(fits);
  const even = [0, 1, 2, 3, 4].map((k) => Number((anchor - 3 * (10 ** ((-map(bottom) * k) / 4) - 1)).toPrecision(2)));
  const ticks = coarse.length > 3 ? coarse : [...new Set([anchor, ...even.slice(1)])];
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
