// A mixture of Gaussians as an image: density on a grid, a perceptual colour map, one scale for every panel.

const GRID = 176; // pixels a side of the density grid; the browser smooths it to the panel
const DENSITY_TOP = 5; // density at the dark end of the scale; above it the colour stays

// mako (seaborn): lightness is monotone, so that it reads the same in grey and to colour-blind eyes
const MAKO = [
  "#0b0405",
  "#1d111d",
  "#2e1e3c",
  "#3a2d5f",
  "#40407e",
  "#3c5397",
  "#38689f",
  "#357ba3",
  "#348fa7",
  "#38a3aa",
  "#49b6ad",
  "#6bc9ad",
  "#98d8b2",
  "#c0e5ca",
  "#def5e5",
];

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function colourTable() {
  const dark = isDark();
  const paper = rgb(css("--panel"));
  const stops = dark ? MAKO.map(rgb) : [...MAKO].reverse().map(rgb).slice(0, 13);
  stops[0] = paper;
  if (dark) stops[1] = stops[1].map((x, i) => (x + paper[i]) / 2);
  const table = new Uint8ClampedArray(256 * 3);
  for (let t = 0; t < 256; t++) {
    const at = (t / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) table[t * 3 + c] = stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]);
  }
  return table;
}

// Axis-aligned components are separable: one exp a row and a column of each, not one a pixel.
function densityGrid([weights, means, sds], half) {
  const field = new Float64Array(GRID * GRID);
  const step = (2 * half) / GRID;
  const along = (mean, sd) =>
    Float64Array.from({ length: GRID }, (_, i) => {
      const z = (-half + (i + 0.5) * step - mean) / sd;
      return Math.exp(-0.5 * z * z) / (sd * Math.sqrt(2 * Math.PI));
    });
  for (let k = 0; k < weights.length; k++) {
    if (weights[k] < 1e-6) continue;
    const x = along(means[2 * k], sds[2 * k]);
    const y = along(means[2 * k + 1], sds[2 * k + 1]);
    for (let j = 0; j < GRID; j++) {
      const scale = weights[k] * y[GRID - 1 - j];
      if (scale < 1e-9) continue;
      const row = j * GRID;
      for (let i = 0; i < GRID; i++) field[row + i] += scale * x[i];
    }
  }
  return field;
}

// A square-root scale: a mode of weight 0.02 must show beside one that holds everything.
const shade = (density) => Math.min(255, Math.round(255 * Math.sqrt(density / DENSITY_TOP)));

function drawDensity(canvas, model, exhibit, table) {
  const context = canvas.getContext("2d");
  const image = new ImageData(GRID, GRID);
  const field = densityGrid(model, exhibit.half_width);
  for (let p = 0; p < field.length; p++) {
    const t = shade(field[p]) * 3;
    image.data.set([table[t], table[t + 1], table[t + 2], 255], p * 4);
  }
  const small = document.createElement("canvas");
  small.width = small.height = GRID;
  small.getContext("2d").putImageData(image, 0, 0);
  const side = Math.round(canvas.clientWidth * Math.min(devicePixelRatio || 1, 2)) || 2 * GRID;
  canvas.width = canvas.height = side;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
  const place = (x) => ((x + exhibit.half_width) / (2 * exhibit.half_width)) * side;
  const scale = side / (canvas.clientWidth || GRID);
  context.strokeStyle = css("--target");
  context.lineWidth = 1.75 * scale;
  context.setLineDash([5 * scale, 3.5 * scale]);
  for (const [x, y] of exhibit.targets) {
    context.beginPath();
    context.arc(place(x), side - place(y), (exhibit.radius / (2 * exhibit.half_width)) * side, 0, 2 * Math.PI);
    context.stroke();
  }
}

// The scale of all panels, as a bar with its densities.
function densityLegend(table) {
  const canvas = h("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const image = new ImageData(256, 1);
  for (let t = 0; t < 256; t++) image.data.set([table[t * 3], table[t * 3 + 1], table[t * 3 + 2], 255], t * 4);
  canvas.getContext("2d").putImageData(image, 0, 0);
  const marks = [0, 0.2, 1, 2.5, DENSITY_TOP];
  const labels = marks.map((m) =>
    h("span", { style: `left:${(100 * shade(m)) / 255}%` }, m === DENSITY_TOP ? `\u2265 ${m}` : m),
  );
  return h(
    "div",
    { class: "scale" },
    h("span", { class: "scale-name" }, "density, per unit area"),
    h("div", { class: "scale-bar" }, canvas, h("div", { class: "scale-marks" }, ...labels)),
  );
}
