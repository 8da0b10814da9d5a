"""The recipes of a study, as data: the ordered stages after SFT. A new recipe is one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignfirst import plugins


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe. It always starts from the model before it (SFT at first)."""

    kind: Literal["align", "distil"]
    reference: Literal["start", "sft"] = "start"  # align: regularised against its own start, or against sft
    rehearsed: bool = False  # distil: mix in `distil.rehearsal` target examples
    updates: float = 1.0  # align: share of `align.updates`


ALIGN, DISTIL = Stage("align"), Stage("distil")

_BUILTIN: dict[str, tuple[Stage, ...]] = {
    "align-distil": (ALIGN, DISTIL),
    "distil-align": (DISTIL, ALIGN),
    "distil-align-anchored": (DISTIL, Stage("align", reference="sft")),
    "distil-align-rehearsed": (Stage("distil", rehearsed=True), ALIGN),
    "align-distil-align": (ALIGN, DISTIL, Stage("align", updates=0.25)),
    "align-only": (ALIGN,),
    "distil-only": (DISTIL,),
}


def _is_recipe(found: object) -> bool:
    return isinstance(found, tuple) and bool(found) and all(isinstance(stage, Stage) for stage in found)


RECIPES: plugins.Registry[tuple[Stage, ...]] = plugins.Registry(
    plugins.RECIPES, _BUILTIN, "tuple of alignfirst.study.config.recipe.Stage", _is_recipe
)
