"""Studies that vary keys, and studies of more than the two orders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report.run_files import RunFiles, load
from alignfirst.report.sentences.headline_numbers import headline_numbers
from alignfirst.report.sentences.other_recipes import recipe_lines
from alignfirst.report.sentences.varied_keys import named
from alignfirst.study.config.recipe import RECIPES

GRID = [0.1, 0.2, 0.3]


def test_a_list_with_one_varying_entry_is_known_by_that_entry() -> None:
    rows = [{"w": [0.2, 0.1]}, {"w": [0.2, 0.3]}]
    (name,) = named(["w"], rows)
    assert (name.label, name.text([0.2, 0.3])) == ("w[1]", "0.3")


@pytest.mark.parametrize(
    "values", [[[1, 2], [3, 4]], [[1], [1, 2]], [[1, 2], [1, 2]], [[1], "x"], [1.0, 2.0], [None, [1]]]
)
def test_anything_else_is_shown_whole(values: list[Any]) -> None:
    (name,) = named(["key"], [{"key": v} for v in values])
    assert name.label == "key" and name.entry is None


@pytest.fixture(scope="module")
def many(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    spec = synthetic.Spec(recipes=tuple(RECIPES), algorithms=("grpo", "best-of-n"), betas=(0.1, 0.3), seeds=6)
    return load(synthetic.write(tmp_path_factory.mktemp("many") / "run", spec))


def test_every_recipe_is_counted_against_distil_align(many: RunFiles) -> None:
    lines = recipe_lines(many, 0.1)
    compared = [name for name, stages in RECIPES.items() if len(stages) > 1 and name != "distil-align"]
    assert [x.recipe for x in lines] == compared
    for line in lines:
        rows = [d for d in many.statistics["recipes"] if d["recipe"] == line.recipe and d["metric"] == "reward"]
        assert line.ahead == sum(d["low"] > 0 for d in rows)
        assert line.behind == sum(d["high"] < 0 for d in rows)
        assert line.ahead + line.level + line.behind + line.refused == len(rows) == 3
        (here,) = (d["mean"] for d in rows if d["beta"] == 0.1)
        assert line.at_focus == f"{here:+.2f}".replace("-", "−")


def test_a_study_of_two_orders_has_no_such_table(built: Path) -> None:
    assert recipe_lines(load(built), 0.1) == []


def window(algorithm: str, low: float, high: float, seen: list[float]) -> dict[str, Any]:
    return {"algorithm": algorithm, "predicted": {"low": low, "high": high}, "observed": {"betas": seen}}


def values(run: RunFiles, windows: list[dict[str, Any]]) -> list[str]:
    bare = dataclasses.replace(run, statistics={**run.statistics, "pairs": []})
    return [t.value for t in headline_numbers(bare, windows, GRID, None)]


def test_the_window_of_theory_and_what_most_algorithms_showed(many: RunFiles) -> None:
    a = window("a", 0.1, 0.25, [0.1, 0.2])
    assert values(many, [a]) == ["beta 0.10 to 0.25", "beta 0.1 and 0.2"]
    b, c = window("b", 0.1, 0.25, [0.2]), window("c", 0.1, 0.25, [0.2, 0.3])
    assert values(many, [a, b, c]) == ["beta 0.10 to 0.25", "beta 0.2"]
    assert values(many, [a, window("b", 0.1, 0.25, []), window("c", 0.1, 0.25, [])])[1] == "beta 0.1 and 0.2"
    assert values(many, [window("a", 0.3, 0.1, [])]) == ["none", "not seen"]
    assert values(many, []) == []


def test_windows_of_variants_are_counted_and_not_averaged(many: RunFiles) -> None:
    windows = [window("a", 0.15, 0.25, [0.2]), window("a", 0.21, 0.29, []), window("a", 0.3, 0.1, [])]
    assert values(many, windows) == ["1 of 3", "1 of 3"]
