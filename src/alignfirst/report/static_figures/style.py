"""Colours, marks and headings that all static figures share. They are those of the page in its light theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {
    "align-distil": "#0a66ad", "distil-align": "#c4500b", "distil-align-anchored": "#7a4aa0",
    "distil-align-rehearsed": "#12805c", "align-distil-align": "#a3246b", "align-only": "#4d5661",
    "distil-only": "#8a8f96",
}  # fmt: skip
MARKERS = {"align-distil": "o", "distil-align": "D", "distil-align-anchored": "s", "distil-align-rehearsed": "^",
           "align-distil-align": "*", "align-only": "X", "distil-only": "P"}  # fmt: skip
STAGE_WORDS = {"sft": "sft", "align": "aligned", "distil": "student"}
MUTED, TARGET, NEUTRAL = "#5a626c", "#c2185b", "#f1efea"


def cut(text: str, most: int = 28) -> str:
    """A name that is longer than a figure has room for."""
    return text if len(text) <= most else text[: most - 1] + "…"


def color(recipe: str) -> str:
    return COLORS.get(recipe, "#4d5661")


def title(figure: Figure, question: str, below: str) -> None:
    """The question above, the choice below; both at a fixed distance, whatever the figure's height."""
    inch = 1 / figure.get_figheight()
    figure.suptitle(question, x=0.01, y=1 + 0.06 * inch, ha="left", va="bottom", fontsize=12.5, fontweight="bold")
    figure.text(0.01, -0.05 * inch, cut(below, 160), ha="left", va="top", fontsize=8.5, color=MUTED)
