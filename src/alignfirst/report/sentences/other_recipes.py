"""The recipes beside the two orders: how each compares with distil-align, setting by setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import signed


@dataclass(frozen=True)
class RecipeLine:
    """One recipe against distil-align in reward, over all settings; intervals are not corrected for their number."""

    recipe: str
    ahead: int  # settings in which the interval is above 0
    level: int  # it includes 0
    behind: int
    refused: int  # fewer paired seeds than an interval needs
    at_focus: str  # range of the difference over the settings at the beta that the summary quotes


def recipe_lines(run: RunFiles, focus: float | None) -> list[RecipeLine]:
    """Empty where the study has no recipes of two or more stages beside the two orders."""
    by_recipe: dict[str, list[Mapping[str, Any]]] = {}
    for d in run.statistics.get("recipes", []):
        if d["metric"] == "reward":
            by_recipe.setdefault(d["recipe"], []).append(d)
    if not set(by_recipe) - {"align-distil"}:
        return []
    return [_line(recipe, rows, focus) for recipe, rows in by_recipe.items()]


def _line(recipe: str, rows: Sequence[Mapping[str, Any]], focus: float | None) -> RecipeLine:
    known = [d for d in rows if d["low"] is not None and d["high"] is not None]
    ahead, behind = sum(d["low"] > 0 for d in known), sum(d["high"] < 0 for d in known)
    means = [d["mean"] for d in rows if d["beta"] == focus and d["mean"] is not None]
    low, high = (signed(f(means), 2) if means else "–" for f in (min, max))
    return RecipeLine(
        recipe=recipe,
        ahead=ahead,
        level=len(known) - ahead - behind,
        behind=behind,
        refused=len(rows) - len(known),
        at_focus=low if low == high else f"{low} to {high}",
    )
