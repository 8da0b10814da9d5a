// A figure: controls, a drawing, a caption and the table behind it. Drawn when it comes into view.

const FIGURES = {}; // name -> { deps, controls(), draw(element, width), caption(), table(), plotly }
const MOST_ROWS = 400;
const mounted = [];

class Figure {
  constructor(node, spec) {
    this.node = node;
    this.spec = spec;
    this.name = node.dataset.figure;
    this.plot = node.querySelector(".plot");
    this.caption = node.querySelector("figcaption");
    this.details = node.querySelector("details.data");
    this.drawn = this.visible = this.dirty = false;
    const controls = (spec.controls ? spec.controls() : []).filter(Boolean);
    const bar = node.querySelector(".controls");
    if (controls.length) bar.append(...controls);
    else bar.remove();
    if (this.details) {
      this.details.addEventListener("toggle", () => this.details.open && this.fillTable());
      if (!spec.table) this.details.remove();
    }
    this.say();
  }

  say() {
    const text = this.spec.caption ? this.spec.caption() : "";
    if (this.caption) this.caption.textContent = text;
    if (this.plot.getAttribute("role") === "img") this.plot.setAttribute("aria-label", text);
  }

  render() {
    this.drawn = true;
    this.dirty = false;
    this.say();
    const reason = this.spec.empty ? this.spec.empty() : null;
    this.plot.classList.toggle("empty", Boolean(reason));
    if (reason) {
      if (this.spec.plotly && this.plot.data) Plotly.purge(this.plot);
      this.plot.style.height = "";
      this.plot.replaceChildren(h("p", {}, reason));
    } else {
      if (this.spec.plotly && !this.plot.data) this.plot.replaceChildren();
      this.spec.draw(this.plot, this.plot.clientWidth);
    }
    if (this.details && this.details.open) this.fillTable();
  }

  refresh() {
    this.say();
    if (!this.drawn) return;
    if (this.visible) this.render();
    else this.dirty = true;
  }

  fillTable() {
    const { columns, rows } = this.spec.table();
    const body = h(
      "tbody",
      {},
      ...rows.slice(0, MOST_ROWS).map((row) => h("tr", {}, ...row.map((x, i) => cellNode(x, i === 0)))),
    );
    const head = h("thead", {}, h("tr", {}, ...columns.map((c) => h("th", { scope: "col" }, c))));
    const parts = [
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${this.name}` },
        h("table", {}, head, body),
      ),
    ];
    if (rows.length > MOST_ROWS)
      parts.push(h("p", { class: "note" }, `The first ${MOST_ROWS} of ${rows.length} rows; the download has all.`));
    const save = [
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => saveText(`${this.name}.csv`, "text/csv", csvOf(columns, rows)),
        },
        "Save as CSV",
      ),
    ];
    if (this.spec.plotly)
      save.push(
        h("button", { type: "button", class: "quiet", onclick: () => this.saveSvg() }, "Save the figure as SVG"),
      );
    parts.push(h("p", { class: "save" }, ...save));
    this.details.querySelector(".body").replaceChildren(...parts);
  }

  async saveSvg() {
    if (!this.plot.data) return;
    const url = await Plotly.toImage(this.plot, {
      format: "svg",
      width: this.plot.clientWidth,
      height: this.plot.clientHeight,
    });
    saveLink(`${this.name}.svg`, url);
  }
}

function cellNode(value, first) {
  const number = typeof value === "number";
  const text = value === null || value === undefined ? "\u2013" : number ? String(value).replace("-", MINUS) : value;
  return h(first ? "th" : "td", { scope: first ? "row" : null, class: number ? "number" : null }, text);
}

// A field that starts like a formula gets a quote, as in records.csv: a spreadsheet would run it.
function csvOf(columns, rows) {
  const field = (x) => {
    if (x === null || x === undefined) return "";
    const text = typeof x === "string" && /^[=+\-@\t\r\n]/.test(x) ? `'${x}` : String(x);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(field).join(",")).join("\n") + "\n";
}

function saveText(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  saveLink(name, url);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function saveLink(name, href) {
  const link = h("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function plotly(element, traces, layout) {
  element.style.height = `${layout.height}px`;
  return Plotly.react(element, traces, layoutOf(layout), PLOT_CONFIG);
}

function mountFigures() {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const figure = mounted.find((f) => f.node === entry.target);
        figure.visible = entry.isIntersecting;
        if (figure.visible && (!figure.drawn || figure.dirty)) figure.render();
      }
    },
    { rootMargin: "300px 0px" },
  );
  for (const node of document.querySelectorAll("[data-figure]")) {
    const spec = FIGURES[node.dataset.figure];
    if (!spec) continue;
    mounted.push(new Figure(node, spec));
    observer.observe(node);
  }
  listeners.push((changed) => {
    for (const f of mounted) if (f.spec.deps.some((d) => changed.includes(d))) f.refresh();
  });
}

const renderAll = () => mounted.forEach((f) => f.render());
const redrawAll = () => mounted.forEach((f) => f.refresh());
