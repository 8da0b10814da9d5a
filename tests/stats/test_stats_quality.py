"""What recipes cost and reached: means, spreads, sums of operations and the two orders, on rows made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from alignfirst.records import Row
from alignfirst.stats.quality_for_cost import (
    Estimate,
    Measure,
    OrderDifference,
    estimate,
    gain,
    operations,
    orders,
    recipe_cells,
)

REWARD = Measure("reward")


def row(recipe: str, index: int, seed: int, reward: float | None, flops: float = 1.0, **more: object) -> Row:
    found = {
        "recipe": recipe, "algorithm": "grpo", "beta": 0.1, "stage_index": index, "final": index == 2, "seed": seed,
        "status": "ok", "reward": reward, "flops": flops, "intervals": {},
    }  # fmt: skip
    return found | more


def recipe(
    name: str, seed: int, rewards: Sequence[float], costs: Sequence[float], half: float | None = None
) -> list[Row]:
    """Three stages; `half` is half of the interval of each reward over prompts."""
    return [
        row(name, i, seed, r, c, intervals={} if half is None else {"reward": [r - half, r + half]})
        for i, (r, c) in enumerate(zip(rewards, costs, strict=True))
    ]


def test_one_seed_has_the_interval_of_its_record_and_several_their_range() -> None:
    one = recipe("align-distil", 0, (1.0, 2.0, 3.0), (0, 1, 1), half=0.5)
    assert estimate(one[2:], REWARD) == Estimate(3.0, 2.5, 3.5, 1)
    assert estimate([row("x", 2, 0, 3.0)], REWARD) == Estimate(3.0, None, None, 1)
    seeds = [row("x", 2, s, r) for s, r in enumerate((1.0, 2.0, 6.0))]
    assert estimate(seeds, REWARD) == Estimate(3.0, 1.0, 6.0, 3)
    lost = [seeds[0], seeds[1] | {"status": "failed"}, seeds[2] | {"reward": None}]
    assert estimate(lost, REWARD) == Estimate(1.0, None, None, 1)
    assert estimate(lost[1:], REWARD) is None


def test_a_measure_of_a_column_with_several_numbers_is_one_of_them() -> None:
    assert Measure("distinct", "2").of(row("x", 0, 0, 1.0, distinct={"1": 0.1, "2": 0.4})) == 0.4
    assert Measure("distinct", "2").of(row("x", 0, 0, 1.0, distinct=None)) is None
    assert Measure("distinct", "2").of(row("x", 0, 0, 1.0)) is None


def test_operations_are_summed_over_stages_and_averaged_over_whole_seeds() -> None:
    rows = recipe("align-distil", 0, (1, 2, 3), (0, 3, 1)) + recipe("align-distil", 1, (1, 4, 7), (0, 5, 1))
    (cell,) = recipe_cells(rows)
    assert operations(cell) == 5.0  # of 4 and 6
    assert gain(cell, REWARD) == 5.0 - 1.0
    rows[4]["status"] = "failed"  # seed 1 is no longer whole
    assert operations(recipe_cells(rows)[0]) == 4.0
    rows[1]["flops"] = None
    assert operations(recipe_cells(rows)[0]) is None
    rows[0]["reward"] = rows[3]["reward"] = None
    assert gain(recipe_cells(rows)[0], REWARD) is None


@pytest.mark.parametrize(("half", "apart"), [(0.4, True), (0.6, False), (None, None)])
def test_one_seed_of_both_orders_is_judged_by_its_intervals(half: float | None, apart: bool | None) -> None:
    rows = recipe("align-distil", 0, (1, 2, 3), (0, 3, 1), half) + recipe("distil-align", 0, (1, 2, 2), (0, 1, 1), half)
    (found,) = orders(recipe_cells(rows), [REWARD, Measure("entropy")])
    assert found.cell.recipe == "align-distil" and found.ratio == 2.0
    assert found.differences == (OrderDifference(REWARD, 1.0, apart, None, 1),)


def test_several_seeds_of_both_orders_are_counted_in_pairs() -> None:
    rows = []
    for seed, (first, second) in enumerate([(3, 2), (5, 6), (4, 1), (9, None)]):
        rows += recipe("align-distil", seed, (1, 2, first), (0, 3, 1))
        if second is not None:
            rows += recipe("distil-align", seed, (1, 2, second), (0, 1, 1))
    (found,) = orders(recipe_cells(rows), [REWARD])
    assert found.differences == (OrderDifference(REWARD, 21 / 4 - 3, None, 2, 3),)


def test_orders_are_compared_within_one_setting_that_has_both() -> None:
    rows = recipe("align-distil", 0, (1, 2, 3), (0, 3, 1)) + recipe("distil-align", 0, (1, 2, 2), (0, 1, 1))
    for r in rows[3:]:
        r["beta"] = 0.3
    assert orders(recipe_cells(rows), [REWARD]) == []
    varied = [r | {"sft.steps": [1]} for r in rows[:3]] + [r | {"beta": 0.1, "sft.steps": [2]} for r in rows[3:]]
    assert orders(recipe_cells(varied, ["sft.steps"]), [REWARD]) == []
    for r in varied[3:]:
        r["sft.steps"] = [1]
    assert len(orders(recipe_cells(varied, ["sft.steps"]), [REWARD])) == 1
    for r in varied[3:]:
        r["flops"] = 0.0  # a ratio of nothing says nothing
    assert orders(recipe_cells(varied, ["sft.steps"]), [REWARD]) == []
