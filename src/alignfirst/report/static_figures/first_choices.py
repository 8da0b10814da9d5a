"""Pick what a static figure shows: the same first choices as the page makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignfirst.report.palette import Look, look_of
from alignfirst.report.payload import Axes, CellKey, axes
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.headline_numbers import focus_beta

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """A run with one variant, algorithm, beta and seed chosen."""

    run: RunFiles

    @cached_property
    def axes(self) -> Axes:
        return axes(self.run)

    @cached_property
    def cells(self) -> dict[CellKey, Cell]:
        return {self.axes.key(c): c for c in self.run.statistics.get("cells", [])}

    @cached_property
    def with_beta(self) -> list[int]:
        """Algorithms that have a beta, by number."""
        return sorted({a for _, _, a, b, _ in self.cells if a >= 0 and b >= 0})

    @cached_property
    def algorithm(self) -> int:
        return self.with_beta[0] if self.with_beta else 0

    @cached_property
    def beta(self) -> int:
        focus = focus_beta(list(self.run.statistics.get("windows", [])), self.axes.betas.values)
        return -1 if focus is None else self.axes.betas.add(focus)

    def look(self, recipe: int) -> Look:
        """The look of a recipe, by its number."""
        return look_of(str(self.axes.recipes.values[recipe]), recipe)

    @cached_property
    def stages(self) -> dict[int, list[str]]:
        """Stages of each recipe, by its number."""
        found: dict[int, dict[int, str]] = {}
        for row in self.run.rows:
            found.setdefault(self.axes.recipes.add(row["recipe"]), {})[row["stage_index"]] = row["stage"]
        return {r: [found[r][i] for i in sorted(found[r])] for r in sorted(found)}

    def cell(self, recipe: int, stage: int, algorithm: int | None = None, beta: int | None = None) -> Cell | None:
        """A cell of the first variant; baselines have no beta, recipes without alignment no algorithm."""
        a, b = self.algorithm if algorithm is None else algorithm, self.beta if beta is None else beta
        keys = ((0, recipe, a, b, stage), (0, recipe, a, -1, stage), (0, recipe, -1, -1, stage))
        return next((self.cells[k] for k in keys if k in self.cells and self.cells[k]["n"]), None)

    @cached_property
    def words(self) -> str:
        """The choice, for the line below a figure."""
        return ", ".join([*self.choice, *self.variant_words])

    @property
    def algorithm_word(self) -> str:
        names = self.axes.algorithms.values
        return str(names[self.algorithm]) if names else "no alignment"

    @property
    def choice(self) -> list[str]:
        """The algorithm, and the beta where the study has one."""
        beta = [f"beta {self.axes.betas.values[self.beta]:g}"] if self.beta >= 0 else []
        return [self.algorithm_word, *beta]

    @property
    def variant_words(self) -> list[str]:
        first = self.axes.variants.values[0] if self.axes.variants.values else []
        return [f"{n.label} {n.text(v)}" for n, v in zip(self.run.names, first, strict=True)]
