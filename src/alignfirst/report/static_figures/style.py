"""Names and headings that all static figures share; colours are those of the page on light paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignfirst.report.palette import light

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = tuple["Figure", str]  # and what the line below it says
MUTED, TARGET = light("muted"), light("target")


def cut(text: str, most: int = 28) -> str:
    """A name that is longer than a figure has room for."""
    return text if len(text) <= most else text[: most - 1] + "…"


def title(figure: Figure, question: str, below: str) -> None:
    """The question above, the choice below; both at a fixed distance, whatever the figure's height."""
    inch = 1 / figure.get_figheight()
    figure.suptitle(question, x=0.01, y=1 + 0.06 * inch, ha="left", va="bottom", fontsize=12.5, fontweight="bold")
    figure.text(0.01, -0.05 * inch, cut(below, 160), ha="left", va="top", fontsize=8.5, color=MUTED)
