"""Static figures that only text has: mass by behaviour, and training curves of both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alignfirst.records import Row
from alignfirst.report.exhibit_shapes import CURVE_WORDS
from alignfirst.report.sentences.words import STAGES
from alignfirst.report.static_figures.first_choices import Selection
from alignfirst.report.static_figures.style import MUTED, TARGET, Drawing, cut
from alignfirst.report.text_metrics import Measure, measures
from alignfirst.stats.columns import mean_of

SHADES = ("#80878e", "#959ba1", "#aaafb4", "#bfc3c7", "#d3d6d9", "#e6e8ea")


def behaviours(s: Selection) -> Drawing | None:
    """Mass by behaviour after every stage, mean over seeds; the target last, in its own colour."""
    known = [m for m in measures(s.run) if m.column == "posterior"]
    if not known:
        return None
    bars = _bars(s, known)
    figure = Figure(figsize=(8.0, 0.9 + 0.36 * len(bars)), layout="constrained")
    ax = figure.subplots()
    left = np.zeros(len(bars))
    names = list(s.run.exhibits.get("behaviours") or [m.path[0] for m in known])
    target = names[s.run.exhibits.get("target_behaviour", len(names) - 1)]
    for k, m in enumerate(known):
        width = np.array([mass[k] or 0.0 for _, _, mass in bars])
        shade = TARGET if m.path[0] == target else SHADES[k % len(SHADES)]
        ax.barh(range(len(bars)), width, left=left, color=shade, ec="white", lw=0.8, label=cut(m.path[0]))
        left += width
    ax.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    for tick, (_, colour, _) in zip(ax.get_yticklabels(), bars, strict=True):
        tick.set_color(colour)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.set(xlim=(0, 1), xlabel="share of what the model writes")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), title="behaviour", fontsize=8.5)
    return figure, f"{s.words}. Exact posterior, mean over texts and seeds."


def _bars(s: Selection, known: Sequence[Measure]) -> list[tuple[str, str, list[float | None]]]:
    """Label, colour and shares of sft, then of every stage of every recipe."""
    rows: dict[Any, list[Row]] = {}
    for row in s.run.rows:
        rows.setdefault(s.axes.key(row), []).append(row)
    found: list[tuple[str, str, list[float | None]]] = []
    for r, stages in s.stages.items():
        name = str(s.axes.recipes.values[r])
        for i, kind in enumerate(stages):
            cell = s.cell(r, i)
            if cell is None or (i == 0 and found):
                continue
            mass = [mean_of([m.of(row) for row in rows[s.axes.key(cell)]]) for m in known]
            label = "sft" if i == 0 else f"{cut(name)}: {STAGES.get(kind, kind)}"
            found.append((label, MUTED if i == 0 else s.look(r).colour.light, mass))
    return found


def training(s: Selection) -> Drawing | None:
    """Curves of the first align stage of every recipe: the first seed bold, the others faint."""
    models = s.run.exhibits.get("models") or {}
    if s.run.exhibits.get("kind") != "text":
        return None
    runs = {r: _runs(s, models, r) for r in s.stages if "align" in s.stages[r]}
    present = {n for by_seed in runs.values() for curves in by_seed.values() for n in _known(curves)}
    names = [n for n in CURVE_WORDS if n in present]
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax, name in zip(panels, names, strict=False):
        for r, by_seed in runs.items():
            _draw(ax, by_seed, name, str(s.axes.recipes.values[r]), s.look(r).colour.light)
        ax.set_title(CURVE_WORDS[name], loc="left", fontsize=9.5)
    for ax in panels[len(names) :]:
        ax.axis("off")
    panels[0].legend(loc="best", fontsize=8.5)
    first = min((seed for by_seed in runs.values() for seed in by_seed), default=0)
    return figure, f"{s.words}, over updates. Bold: seed {first}. Faint: the other seeds."


def _runs(s: Selection, models: Mapping[str, Any], r: int) -> dict[int, Mapping[str, Any]]:
    """Curves by seed of a recipe's first align stage."""
    cell = s.cell(r, s.stages[r].index("align"))
    if cell is None:
        return {}
    key = s.axes.key(cell)
    rows = sorted((row for row in s.run.rows if s.axes.key(row) == key), key=lambda row: int(row["seed"]))
    return {row["seed"]: models[row["model"]].get("curves") or {} for row in rows if row["model"] in models}


def _draw(ax: Any, by_seed: Mapping[int, Mapping[str, Any]], name: str, recipe: str, color: str) -> None:
    for k, curves in enumerate(by_seed.values()):
        at = [i for i, v in enumerate(curves.get(name) or []) if v is not None]
        x, y = ([curves[n][i] for i in at] for n in ("update", name))
        bold = {"lw": 2.0, "label": cut(recipe)} if k == 0 else {"lw": 0.7, "alpha": 0.3}
        ax.plot(x, y, color=color, marker="." if len(at) < 14 else "", **bold)


def _known(curves: Mapping[str, Any]) -> list[str]:
    return [n for n, values in curves.items() if any(v is not None for v in values)]
