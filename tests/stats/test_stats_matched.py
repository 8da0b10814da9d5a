"""Spread of reward at equal mean reward, against curves whose difference is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from alignfirst.stats import matched_spread
from alignfirst.stats.matched import at_equal_reward

BETAS = (0.05, 0.1, 0.3)


def two_outcomes(*share: float) -> np.ndarray[Any, Any]:
    """Rewards of 0 with that probability, else -1: mean share - 1, sd sqrt(share (1 - share))."""
    m = np.array(share)
    return np.stack([m - 1, np.sqrt(m * (1 - m))], axis=1)


def test_points_of_one_arc_do_not_differ_however_far_apart_they_are() -> None:
    """Straight lines of the sd would: the chord from 0.1 to 0.95 runs far below the arc at 0.5."""
    left, right = two_outcomes(0.3, 0.99), two_outcomes(0.1, 0.5, 0.95)
    assert at_equal_reward(left, right) == pytest.approx((0.0, -0.7, -0.05), abs=1e-12)


def test_between_two_points_stand_their_mixtures() -> None:
    """A point that is the mixture of its neighbours changes nothing."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(-0.8, 0.1, 500), rng.normal(-0.1, 0.3, 500)
    points = np.array([[x.mean(), x.std()] for x in (a, np.concatenate([a, b]), b)])
    assert at_equal_reward(points, points[[0, 2]])[0] == pytest.approx(0.0, abs=1e-12)


def test_the_difference_is_a_mean_over_the_interval() -> None:
    """Noise of sd 0.2 within every output of one side: sqrt(v + 0.04) - sqrt(v), integrated by SciPy."""
    left, right = two_outcomes(0.2, 0.8), two_outcomes(0.1, 0.9)
    left[:, 1] = np.sqrt(left[:, 1] ** 2 + 0.04)
    expected = quad(lambda m: np.sqrt(m * (1 - m) + 0.04) - np.sqrt(m * (1 - m)), 0.2, 0.8)[0] / 0.6
    assert at_equal_reward(left, right)[0] == pytest.approx(expected, rel=1e-4)


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
    """Two outcomes; A-K reaches -0.1, -0.2, -0.5, K-A -0.3, -0.4, -0.6 with noise of sd 0.1 + 0.02 seed on top."""
    first = row["recipe"] == "align-distil"
    reward = dict(zip(BETAS, (-0.1, -0.2, -0.5) if first else (-0.3, -0.4, -0.6), strict=True))[row["beta"]]
    noise = 0.0 if first else 0.1 + 0.02 * row["seed"]
    return {"reward": reward, "reward_sd": np.sqrt(-reward * (1 + reward) + noise**2)}


def test_differences_by_seed_with_their_interval(study: Any) -> None:
    (found,) = matched_spread(study(curves, betas=BETAS))
    r = np.linspace(-0.5, -0.3, 20_001)
    arc = -r * (1 + r)
    expected = [float((np.sqrt(arc) - np.sqrt(arc + (0.1 + 0.02 * s) ** 2)).mean()) for s in range(6)]
    assert found["differences"] == pytest.approx(expected, rel=1e-4)
    assert found["from_reward"] == pytest.approx([-0.5] * 6) and found["to_reward"] == pytest.approx([-0.3] * 6)
    half = 2.570582 * np.std(expected, ddof=1) / np.sqrt(6)
    mean = np.mean(expected)
    assert (found["low"], found["high"]) == pytest.approx((mean - half, mean + half), rel=1e-3)
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
