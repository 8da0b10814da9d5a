"""Made-up studies: rows as a run writes them, with whatever values a test wants to plant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from alignfirst.records import COLUMNS
from alignfirst.study.config.recipe import RECIPES

Values = Callable[[dict[str, Any]], dict[str, Any]]
Study = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def study() -> Study:
    def build(
        values: Values,
        *,
        seeds: Iterable[int] = range(6),
        recipes: Iterable[str] = ("align-distil", "distil-align"),
        algorithms: Iterable[str] = ("rloo",),
        betas: Iterable[float | None] = (0.1,),
        varied: Iterable[dict[str, Any]] = ({},),
    ) -> list[dict[str, Any]]:
        """`values` gets a row with its key columns and returns the columns to set."""
        rows = []
        grid = [(v, r, a, b, s) for v in varied for r in recipes for a in algorithms for b in betas for s in seeds]
        for setting, recipe, algorithm, beta, seed in grid:
            stages = ["sft", *(stage.kind for stage in RECIPES[recipe])]
            for index, stage in enumerate(stages):
                row: dict[str, Any] = {c.name: None for c in COLUMNS}
                row |= {"recipe": recipe, "algorithm": algorithm, "beta": beta, "seed": seed, "stage": stage}
                row |= {"stage_index": index, "final": index == len(stages) - 1, "status": "ok", **setting}
                rows.append(row | values(row))
        return rows

    return build
