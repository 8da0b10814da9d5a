"""The drawings behind the static figures: one function a figure, None where the run has nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from alignfirst.report.palette import CALL_LOOKS, RECIPE_LOOKS, light
from alignfirst.report.sentences.words import STAGES, beta_text, signed
from alignfirst.report.static_figures.first_choices import Selection
from alignfirst.report.static_figures.style import MUTED, TARGET, Drawing, cut
from alignfirst.report.static_figures.text_plots import behaviours, training
from alignfirst.stats.intervals import level_words

MAKO = ("#ffffff", "#c0e5ca", "#98d8b2", "#6bc9ad", "#49b6ad", "#38a3aa", "#348fa7", "#357ba3", "#38689f", "#3c5397",
        "#40407e", "#3a2d5f", "#2e1e3c")  # fmt: skip
DENSITY = LinearSegmentedColormap.from_list("density", MAKO)
FIRST, SECOND = (RECIPE_LOOKS[recipe].colour for recipe in ("align-distil", "distil-align"))
DIVERGING = LinearSegmentedColormap.from_list("order", [SECOND.light, light("neutral"), FIRST.light])
DENSITY_TOP = 5.0
Floats = NDArray[np.float64]


def filmstrip(s: Selection) -> Drawing | None:
    """Densities along the stages of align-distil and distil-align, for the first seed kept."""
    exhibits = s.run.exhibits
    models = exhibits.get("models") or {}
    rows = [r for r in s.stages if s.axes.recipes.values[r] in ("align-distil", "distil-align")]
    if exhibits.get("kind") != "mixture" or not models or not rows:
        return None
    seed = min(row["seed"] for row in s.run.rows if row["model"] in models)
    strips = [(r, [exhibits["p_star"], *(_model(s, r, i, seed) for i in range(len(s.stages[r])))]) for r in rows]
    width = max(len(strip) for _, strip in strips)
    figure = Figure(figsize=(2.35 * width, 2.65 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes, (r, strip) in zip(grid, strips, strict=True):
        name, look = s.axes.recipes.values[r], s.look(r)
        color = look.colour.light
        words = ["p_star", *(STAGES.get(k, k) for k in s.stages[r])]
        for ax, model, word in zip(axes, strip, words, strict=False):
            _density_panel(ax, model, exhibits)
            ax.set_title(word, loc="left", fontsize=9.5, color=color)
        for ax in axes[len(strip) :]:
            ax.axis("off")
        axes[0].set_ylabel(cut(name), color=color, fontweight="bold")
    below = f"{s.words}, seed {seed}. Dashed: the target region."
    return figure, below


def _model(s: Selection, recipe: int, stage: int, seed: int) -> Mapping[str, Any] | None:
    cell = s.cell(recipe, stage)
    if cell is None:
        return None
    key = s.axes.key(cell)
    found = (r["model"] for r in s.run.rows if r["seed"] == seed and s.axes.key(r) == key)
    return dict(s.run.exhibits["models"]).get(next(found, None))


def _density_panel(ax: Any, model: Mapping[str, Any] | None, exhibits: Mapping[str, Any]) -> None:
    half = float(exhibits["half_width"])
    ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(True)
    if model is None:
        ax.text(0, 0, "no model", ha="center", va="center", color=MUTED)
        return
    image = np.sqrt(np.minimum(_density(model, half, 160), DENSITY_TOP))
    ax.imshow(
        image, origin="lower", extent=(-half, half, -half, half), cmap=DENSITY, vmin=0, vmax=DENSITY_TOP**0.5,
        interpolation="bilinear",
    )  # fmt: skip
    for target in exhibits["targets"]:
        ax.add_patch(Circle(target, exhibits["radius"], fill=False, ec=TARGET, ls=(0, (4, 3)), lw=1.2))


def _density(model: Mapping[str, Any], half: float, n: int) -> Floats:
    """[n, n] density of a diagonal mixture on the square, row = y."""
    x = (np.arange(n) + 0.5) / n * 2 * half - half
    w, m, sd = (np.asarray(model[k], float) for k in ("weights", "means", "sds"))
    m, sd = m[:, :, None], sd[:, :, None]
    along = np.exp(-0.5 * ((x - m) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))  # [K, 2, n]
    density: Floats = np.einsum("k,ky,kx->yx", w, along[:, 1], along[:, 0])
    return density


def plane(s: Selection) -> Drawing | None:
    """Target precision against target recall, one path a recipe, faint lines for single seeds."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = figure.subplots()
    for r, stages in s.stages.items():
        name, look = s.axes.recipes.values[r], s.look(r)
        color = look.colour.light
        cells = [c for i in range(len(stages)) if (c := s.cell(r, i)) is not None]
        for path in _seed_paths(cells):
            ax.plot(*path.T, color=color, lw=0.7, alpha=0.25)
        x, y = ([c[m]["mean"] for c in cells] for m in ("target_recall", "target_precision"))
        if not cells or None in x or None in y:
            continue
        ax.plot(x, y, color=color, lw=2.2, marker=look.marker, mfc="white", mew=1.6, ms=5.5)
        ax.plot(x[-1:], y[-1:], color=color, marker=look.marker, ms=9, ls="none", label=cut(name))
    if not ax.get_legend_handles_labels()[1]:
        return None
    ax.set(xlabel="target recall, nats", ylabel="target precision, nats")
    ax.legend(loc="best")
    below = f"{s.words}. Filled: where the recipe ends. Faint: single seeds."
    return figure, below


def _seed_paths(cells: Sequence[Mapping[str, Any]]) -> list[Floats]:
    """One [stages, 2] path of recall and precision a seed."""
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for c in cells:
        for seed, x, y in zip(c["seeds"], c["target_recall"]["values"], c["target_precision"]["values"], strict=True):
            if x is not None and y is not None:
                by_seed.setdefault(seed, []).append((x, y))
    return [np.array(path) for path in by_seed.values()]


def reward_map(s: Selection) -> Drawing | None:
    """align-distil minus distil-align in reward, algorithm by beta."""
    return _heatmap(s, "reward", 2)


def precision_map(s: Selection) -> Drawing | None:
    return _heatmap(s, "target_precision", 1)


def _heatmap(s: Selection, metric: str, places: int) -> Drawing | None:
    pairs = {s.axes.of(p): p for p in s.run.statistics.get("pairs", []) if p["metric"] == metric}
    betas = [*range(len(s.axes.betas.values)), *([-1] if any(b == -1 for _, _, b in pairs) else [])]
    rows = [a for a in range(len(s.axes.algorithms.values)) if any((0, a, b) in pairs for b in betas)]
    grid = [[pairs.get((0, a, b)) for b in betas] for a in rows]
    below = [f"{_bold()} {FIRST.word.capitalize()}: aligning first is ahead.", *s.variant_words]
    names = [str(s.axes.algorithms.values[a]) for a in rows]
    ticks = ["no beta" if b < 0 else beta_text(s.axes.betas.values[b]) for b in betas]
    return _grid_figure(grid, names, ticks, ("", "beta"), places, " ".join(below))


def _bold() -> str:
    return f"Bold: the {level_words()} interval, paired by seed, excludes 0."


def boundary(s: Selection) -> Drawing | None:
    """align-distil minus distil-align in reward over the first two varied keys, at one algorithm and beta."""
    variants, names = s.axes.variants.values, s.run.names
    texts = [[n.text(v) for n, v in zip(names, variant, strict=True)] for variant in variants]
    spread = [k for k in range(len(names)) if len({t[k] for t in texts}) > 1]
    if len(spread) < 2:
        return None
    x, y, *rest = spread
    pairs = _boundary_pairs(s, texts, x, y, rest)
    columns, rows = ([*dict.fromkeys(t[k] for t in texts)] for k in (x, y))
    grid = [[pairs.get((r, c)) for c in columns] for r in rows]
    chosen = [*s.choice, *(f"{names[k].label} {texts[0][k]}" for k in rest)]
    below = f"{', '.join(chosen)}. {_bold()}"
    labels = (names[y].label, names[x].label)
    return _grid_figure(grid, rows, columns, labels, 2, below)


def _boundary_pairs(
    s: Selection, texts: Sequence[Sequence[str]], x: int, y: int, rest: Sequence[int]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Pairs of the chosen algorithm and beta by the texts of two keys, the other keys as in the first variant."""
    found = {}
    for p in s.run.statistics.get("pairs", []):
        variant, algorithm, beta = s.axes.of(p)
        t = texts[variant]
        chosen = (algorithm, beta) == (s.algorithm, s.beta) and all(t[k] == texts[0][k] for k in rest)
        if p["metric"] == "reward" and chosen:
            found[t[y], t[x]] = p
    return found


def _grid_figure(
    grid: Sequence[Sequence[Mapping[str, Any] | None]], rows: Sequence[str], columns: Sequence[str],
    labels: tuple[str, str], places: int, below: str,
) -> Drawing | None:  # fmt: skip
    values = np.array([[np.nan if p is None or p["mean"] is None else p["mean"] for p in row] for row in grid], float)
    if not np.isfinite(values).any():
        return None
    top = max(float(np.nanmax(np.abs(values))), 1e-9)
    figure = Figure(figsize=(1.8 + 0.85 * len(columns), 1.1 + 0.42 * len(rows)), layout="constrained")
    ax = figure.subplots()
    ax.pcolormesh(values, cmap=DIVERGING, vmin=-top, vmax=top, edgecolors="white", linewidth=1.5)
    for j, row in enumerate(grid):
        for i, p in enumerate(row):
            if p is not None:
                clear = p["low"] is not None and (p["low"] > 0 or p["high"] < 0)
                dark = np.isfinite(values[j, i]) and abs(values[j, i]) > 0.6 * top
                ax.text(
                    i + 0.5, j + 0.5, signed(p["mean"], places) if p["mean"] is not None else "n/a", ha="center",
                    va="center", color="white" if dark else light("ink"), fontweight="bold" if clear else "normal",
                )  # fmt: skip
    ax.set_yticks(np.arange(len(rows)) + 0.5, [cut(r) for r in rows])
    ax.set_xticks(np.arange(len(columns)) + 0.5, [cut(c, 12) for c in columns])
    ax.set(xlabel=cut(labels[1]), ylabel=cut(labels[0]))
    ax.invert_yaxis()
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return figure, below


def frontier(s: Selection) -> Drawing | None:
    """Reward against KL to the stage's reference along beta, beside the exact optimum where its KL is known."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    ax = figure.subplots()
    for r, stages in s.stages.items():
        name, look = s.axes.recipes.values[r], s.look(r)
        color = look.colour.light
        for i in [i for i, kind in enumerate(stages) if kind == "align"][:1]:
            cells = [c for b in range(len(s.axes.betas.values)) if (c := s.cell(r, i, beta=b)) is not None]
            cells = [c for c in cells if c["kl_to_reference"] is not None and c["beta"] is not None]
            if cells:
                x, y = [c["kl_to_reference"] for c in cells], [c["reward"]["mean"] for c in cells]
                ax.plot(
                    x,
                    y,
                    color=color,
                    lw=2,
                    marker=look.marker,
                    mfc="white",
                    mew=1.5,
                    label=cut(name),
                )
            exact = [(c["exact_kl"], c["exact_reward"]) for c in cells if c.get("exact_kl") is not None]
            if exact:
                ax.plot(*np.array(exact).T, color=color, lw=1.4, ls=":")
    if not ax.get_legend_handles_labels()[1]:
        return None
    ax.set(xlabel="KL to the stage's own reference, nats", ylabel="reward")
    ax.legend(loc="best")
    below = ", ".join([s.algorithm_word, *s.variant_words])
    below += ". One mark a beta. Dotted: the exact optimum."
    return figure, below


def audited(s: Selection) -> Drawing | None:
    """Reward that the audit predicted against reward reached, one panel an algorithm, coloured by verdict."""
    seen: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in s.run.rows:
        if row["status"] == "ok" and row["audit_reward"] is not None:
            seen.setdefault(row["algorithm"], {}).setdefault(row["model"], row)
    if not seen:
        return None
    across = min(3, len(seen))
    down = -(-len(seen) // across)
    figure = Figure(figsize=(0.6 + 2.6 * across, 2.7 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, (algorithm, rows) in zip(grid, seen.items(), strict=False):
        for call, look in CALL_LOOKS.items():
            mine = [(r["audit_reward"], r["reward"]) for r in rows.values() if r["audit_verdict"] == call]
            x, y = np.array(mine, float).reshape(-1, 2).T
            ax.plot(
                x, y, ls="none", marker=look.marker, ms=3.6, color=look.colour.light, alpha=0.6, mew=0.8, label=call
            )
        ax.axline((0, 0), slope=1, color=light("line"), lw=1)
        ax.set_title(cut(algorithm), loc="left", fontsize=9.5)
    for ax in grid[len(seen) :]:
        ax.axis("off")
    figure.supxlabel("reward that the audit predicted", fontsize=9.5, color=MUTED)
    figure.supylabel("reward reached", fontsize=9.5, color=MUTED)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure, "One mark an alignment, at the end of its align stage."


def seeds(s: Selection) -> Drawing | None:
    """Final reward of every seed, by recipe and beta."""
    betas = list(range(len(s.axes.betas.values))) or [-1]
    recipes = list(s.stages)
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / len(recipes)
    for k, r in enumerate(recipes):
        name, look = s.axes.recipes.values[r], s.look(r)
        color = look.colour.light
        label: str | None = cut(name)
        for j, b in enumerate(betas):
            cell = s.cell(r, len(s.stages[r]) - 1, beta=b)
            if cell is None:
                continue
            centre = j - 0.4 + (k + 0.5) * width
            offset = (np.array(cell["seeds"]) * 0.6180339887 % 1 - 0.5) * 0.7 * width
            y = np.array(cell["reward"]["values"], float)
            dots: dict[str, Any] = {"marker": look.marker, "ms": 3.6, "alpha": 0.55, "mew": 0, "ls": "none"}
            ax.plot(centre + offset, y, color=color, label=label, **dots)
            mean, half = cell["reward"]["mean"], 0.42 * width
            ax.hlines(mean, centre - half, centre + half, color=color, lw=1.8)
            label = None
    if not ax.get_legend_handles_labels()[1]:
        return None
    ax.set_xticks(range(len(betas)), [beta_text(None if b < 0 else s.axes.betas.values[b]) for b in betas])
    ax.grid(False, axis="x")
    ax.set(xlabel="beta", ylabel="reward at the last stage")
    ax.legend(loc="best")
    below = ", ".join([s.algorithm_word, *s.variant_words])
    return figure, f"{below}. Bars are means."


# File name of a figure -> the question above it, and the function that draws it.
PLOTS: dict[str, tuple[str, Callable[[Selection], Drawing | None]]] = {
    "filmstrip": ("What does each stage do to the distribution?", filmstrip),
    "behaviours": ("What is left of each behaviour?", behaviours),
    "training": ("How did alignment go?", training),
    "precision-recall": ("What does each stage cost in recall, and buy in precision?", plane),
    "order-reward": ("Where does the order of the stages matter, in reward?", reward_map),
    "order-target-precision": ("Where does the order of the stages matter, in target precision?", precision_map),
    "boundary": ("Where is the boundary at which order matters?", boundary),
    "frontier": ("How much reward did alignment get for its KL?", frontier),
    "audited": ("Did the audit know before training?", audited),
    "seeds": ("Do all seeds tell the same story?", seeds),
}
