// Native controls bound to the shared state: keyboard and screen readers get them for free.

let controlCount = 0;

function follow(keys, update) {
  listeners.push((changed) => {
    if (changed.some((k) => keys.includes(k))) update();
  });
  update();
}

function selectControl(label, key, options, { number = true, deps = [key] } = {}) {
  const id = `control-${++controlCount}`;
  const select = h("select", { id, onchange: () => choose({ [key]: number ? Number(select.value) : select.value }) });
  const list = typeof options === "function" ? options : () => options;
  follow(deps, () => {
    select.replaceChildren(...list().map(([value, text]) => h("option", { value }, text)));
    select.value = String(state[key]);
  });
  return h("div", { class: "control" }, h("label", { for: id }, label), select);
}

function betaControl() {
  if (DATA.betas.length < 2) return null;
  const id = `control-${++controlCount}`;
  const out = h("output", { for: id });
  const slider = h("input", {
    type: "range",
    id,
    min: 0,
    max: DATA.betas.length - 1,
    step: 1,
    oninput: () => choose({ beta: Number(slider.value) }),
  });
  const ends = h(
    "span",
    { class: "ends", "aria-hidden": "true" },
    h("span", {}, DATA.betas[0]),
    h("span", {}, DATA.betas[DATA.betas.length - 1]),
  );
  follow(["beta", "algorithm"], () => {
    const used = hasBeta(state.algorithm);
    slider.value = String(state.beta);
    slider.disabled = !used;
    out.textContent = used ? betaText(state.beta) : "not used";
    slider.setAttribute("aria-valuetext", used ? `beta ${betaText(state.beta)}` : "this algorithm has no beta");
  });
  return h(
    "div",
    { class: "control slider" },
    h("label", { for: id }, "beta ", out),
    h("div", { class: "track" }, slider, ends),
  );
}

const algorithmControl = () =>
  DATA.algorithms.length > 1
    ? selectControl(
        "algorithm",
        "algorithm",
        DATA.algorithms.map((a, i) => [i, a]),
      )
    : null;

const seedControl = (seeds) =>
  selectControl(
    "seed",
    "seed",
    seeds.map((s) => [s, s]),
  );

const metricControl = () =>
  selectControl(
    "measure",
    "metric",
    DATA.metrics.map((m) => [m.id, m.label]),
    { number: false },
  );

function segmented(label, key, options) {
  const name = `control-${++controlCount}`;
  const inputs = options.map(([value, text]) => {
    const input = h("input", { type: "radio", name, value, onchange: () => choose({ [key]: value }) });
    return [input, h("label", {}, input, h("span", {}, text)), value];
  });
  follow([key], () => inputs.forEach(([input, , value]) => (input.checked = state[key] === value)));
  return h(
    "fieldset",
    { class: "control segmented" },
    h("legend", {}, label),
    h("div", {}, ...inputs.map(([, node]) => node)),
  );
}

// A study that varies keys: one selector a key, leading to the nearest variant that exists.
function variantControls(keys = DATA.study.varied) {
  const { varied, variants } = DATA.study;
  if (variants.length < 2) return [];
  return keys.map((key) => {
    const k = varied.indexOf(key);
    const values = [...new Set(variants.map((v) => v[k]))];
    const id = `control-${++controlCount}`;
    const select = h(
      "select",
      {
        id,
        onchange: () => {
          const wanted = variants[state.variant].map((x, i) => (i === k ? values[Number(select.value)] : x));
          const fits = (v) => v.filter((x, i) => x === wanted[i]).length;
          const candidates = variants.map((_, i) => i).filter((i) => variants[i][k] === wanted[k]);
          choose({ variant: candidates.reduce((best, i) => (fits(variants[i]) > fits(variants[best]) ? i : best)) });
        },
      },
      ...values.map((value, i) => h("option", { value: i }, value)),
    );
    follow(["variant"], () => (select.value = String(values.indexOf(variants[state.variant][k]))));
    return h("div", { class: "control" }, h("label", { for: id }, key), select);
  });
}
