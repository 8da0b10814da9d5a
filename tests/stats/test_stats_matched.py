"""Spread of reward at equal mean reward, against curves whose difference is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.stats import matched_spread
from alignfirst.stats.matched import at_equal_reward

BETAS = (0.05, 0.1, 0.3)


def test_parallel_lines_differ_by_their_distance_where_both_reach() -> None:
    left = np.array([[0.2, 0.3], [0.8, 0.6]])
    right = np.array([[0.5, 0.35], [1.1, 0.65]])
    assert at_equal_reward(left, right) == pytest.approx((0.10, 0.5, 0.8))


def test_the_mean_is_over_the_interval_not_over_points() -> None:
    """sd 0 on the left; on the right a tent of height 1 on [0, 1]: area 1/2, wherever its top is."""
    left = np.array([[0.0, 0.0], [1.0, 0.0]])
    for top in (0.1, 0.5, 0.93):
        right = np.array([[top, 1.0], [0.0, 0.0], [1.0, 0.0]])
        assert at_equal_reward(left, right)[0] == pytest.approx(-0.5)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_a_curve_does_not_differ_from_itself_and_sides_are_antisymmetric(points: list[tuple[float, float]]) -> None:
    a = np.array(points)
    b = a[::-1] + np.array([0.01, 0.2])
    same = at_equal_reward(a, a)[0]
    assert np.isnan(same) or same == pytest.approx(0, abs=1e-12)
    forth, back = at_equal_reward(a, b)[0], at_equal_reward(b, a)[0]
    assert (np.isnan(forth) and np.isnan(back)) or forth == pytest.approx(-back, abs=1e-9)


def test_recipes_that_reach_no_common_reward_are_not_compared() -> None:
    for right in ([[0.5, 0.1], [0.9, 0.1]], [[0.4, 0.1], [0.9, 0.1]], [[0.2, 0.1], [0.2, 0.3]]):
        assert np.isnan(at_equal_reward(np.array([[0.1, 0.1], [0.4, 0.2]]), np.array(right))).all()


def curves(row: dict[str, Any]) -> dict[str, Any]:
    """A-K reaches 0.9, 0.8, 0.5; K-A 0.7, 0.6, 0.4. At equal reward A-K's sd is 0.05 + 0.01 seed lower."""
    first = row["recipe"] == "align-distil"
    reward = dict(zip(BETAS, (0.9, 0.8, 0.5) if first else (0.7, 0.6, 0.4), strict=True))[row["beta"]]
    return {"reward": reward, "reward_sd": reward * 0.2 + (0.0 if first else 0.05 + 0.01 * row["seed"])}


def test_differences_by_seed_with_their_interval(study: Any) -> None:
    (found,) = matched_spread(study(curves, betas=BETAS))
    expected = [-(0.05 + 0.01 * s) for s in range(6)]
    assert found["differences"] == pytest.approx(expected)
    assert found["from_reward"] == pytest.approx([0.5] * 6) and found["to_reward"] == pytest.approx([0.7] * 6)
    half = 2.570582 * np.std(expected, ddof=1) / np.sqrt(6)
    assert (found["low"], found["high"]) == pytest.approx((np.mean(expected) - half, np.mean(expected) + half))
    assert (found["n"], found["lost"], found["apart"], found["note"]) == (6, 0, 0, None)
    assert (found["algorithm"], found["betas"]) == ("rloo", list(BETAS))


def test_what_cannot_be_compared_is_counted(study: Any) -> None:
    def values(row: dict[str, Any]) -> dict[str, Any]:
        found = curves(row)
        if row["seed"] == 0 and row["recipe"] == "distil-align":
            return found | {"status": "failed"} if row["beta"] == 0.1 else found
        if row["seed"] == 1 and row["recipe"] == "distil-align":
            return found | {"reward": found["reward"] - 5}
        return found

    (found,) = matched_spread(study(values, betas=BETAS))
    assert (found["n"], found["lost"], found["apart"], found["seeds"]) == (4, 1, 1, [2, 3, 4, 5])
    assert (found["low"], found["p"]) == (None, None)
    assert "in 1 of 5 seeds the two recipes reach no common mean reward" in found["note"]


def test_groups_are_settings_and_algorithms_with_a_beta(study: Any) -> None:
    rows = study(curves, betas=BETAS, algorithms=("rloo", "grpo"), varied=({"align.updates": 1}, {"align.updates": 2}))
    keys = [(m["align.updates"], m["algorithm"]) for m in matched_spread(rows, ["align.updates"])]
    assert keys == [(1, "rloo"), (1, "grpo"), (2, "rloo"), (2, "grpo")]
    alone = study(lambda row: {"reward": 0.5, "reward_sd": 0.1}, algorithms=("best-of-n",), betas=(None,))
    assert matched_spread(alone) == []
    (single,) = matched_spread(study(lambda row: {"reward": 0.5, "reward_sd": 0.1}))
    assert (single["n"], single["apart"], single["mean"]) == (0, 6, None)
    assert "it takes two" in single["note"]
