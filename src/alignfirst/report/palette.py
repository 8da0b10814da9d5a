"""Colours and marks: one look a recipe and one a verdict of the audit, from which page, figures and words are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour as captions call it, on light paper and on dark."""

    word: str
    light: str
    dark: str


@dataclass(frozen=True)
class Look:
    """Of a line and its marks. `dash` and `symbol` are Plotly's words, `marker` is Matplotlib's."""

    colour: Colour
    dash: str
    symbol: str
    marker: str

    def plain(self) -> dict[str, str]:
        """For the page's script."""
        c = self.colour
        return {"word": c.word, "light": c.light, "dark": c.dark, "dash": self.dash, "symbol": self.symbol}


BLUE = Colour("blue", "#0a66ad", "#5fb0f2")
ORANGE = Colour("orange", "#c4500b", "#f2934a")
PURPLE = Colour("purple", "#7a4aa0", "#c39ae8")
GREEN = Colour("green", "#12805c", "#4ecb9c")
MAGENTA = Colour("magenta", "#a3246b", "#f07fb6")
SLATE = Colour("slate", "#4d5661", "#b4bdc8")
GREY = Colour("grey", "#8a8f96", "#7f8995")
MUTED = Colour("grey", "#5a626c", "#9ba5b1")
RED = Colour("red", "#b3261e", "#ff8a80")
TARGET = Colour("pink", "#c2185b", "#ff7aa8")

RECIPE_LOOKS: Mapping[str, Look] = {
    "align-distil": Look(BLUE, "solid", "circle", "o"),
    "distil-align": Look(ORANGE, "solid", "diamond", "D"),
    "distil-align-anchored": Look(PURPLE, "dash", "square", "s"),
    "distil-align-rehearsed": Look(GREEN, "dot", "triangle-up", "^"),
    "align-distil-align": Look(MAGENTA, "dashdot", "star", "*"),
    "align-only": Look(SLATE, "longdash", "x", "X"),
    "distil-only": Look(GREY, "longdashdot", "cross", "P"),
}
OTHER_LOOKS = (  # of recipes that have none of their own
    Look(PURPLE, "dot", "hexagon", "h"),
    Look(GREEN, "dash", "pentagon", "p"),
    Look(MAGENTA, "solid", "star-diamond", "d"),
)
CALL_LOOKS: Mapping[str, Look] = {  # of the audit's verdicts
    "go": Look(GREEN, "solid", "circle", "o"),
    "no-go": Look(RED, "solid", "x", "x"),
    "insufficient data": Look(MUTED, "solid", "diamond-open", "d"),
}
GROUND: Mapping[str, tuple[str, str]] = {  # of what is the same in every figure: light, dark
    "page": ("#fbfaf7", "#0f1216"),
    "surface": ("#ffffff", "#161a20"),
    "raised": ("#ffffff", "#20262e"),
    "panel": ("#ffffff", "#0b0d10"),
    "ink": ("#1a1d21", "#e7e9ec"),
    "line": ("#cfccc4", "#3a424d"),
    "grid": ("#ece9e2", "#252b33"),
    "neutral": ("#f1efea", "#262c34"),
    "focus": ("#0a66ad", "#8cc8ff"),
    "first-soft": ("#dcebf7", "#16324a"),
    "second-soft": ("#fbe6d8", "#46270f"),
}
# Two series that are told apart and are no recipes, such as chosen and rejected answers, and what has one meaning.
NAMED: Mapping[str, Colour] = {
    "first": BLUE, "second": ORANGE, "good": GREEN, "bad": RED, "muted": MUTED, "target": TARGET,
}  # fmt: skip


def look_of(recipe: str, place: int) -> Look:
    """The look of a recipe; one without its own gets another by its place among the recipes of the study."""
    return RECIPE_LOOKS.get(recipe) or OTHER_LOOKS[place % len(OTHER_LOOKS)]


def light(name: str) -> str:
    """A colour of GROUND or NAMED on light paper."""
    return NAMED[name].light if name in NAMED else GROUND[name][0]


def style_sheet() -> str:
    """Every colour as a custom property: `--NAME`, and `--RECIPE` for recipes; light unless the reader wants dark."""
    named = {**NAMED, **{recipe: look.colour for recipe, look in RECIPE_LOOKS.items()}}
    pairs = {**GROUND, **{name: (colour.light, colour.dark) for name, colour in named.items()}}
    bright, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in pairs.items()) for i in (0, 1))
    return (
        f":root{{{bright}}}\n"
        f'@media (prefers-color-scheme: dark){{:root:not([data-theme="light"]){{{dark}}}}}\n'
        f':root[data-theme="dark"]{{{dark}}}\n'
    )
