"""The test of equal spread by swaps: against brute force, and how often whole families without a difference err."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from alignfirst.stats.intervals import ALPHA, Floats, holm, pitman_morgan, share_interval
from alignfirst.stats.swaps import seeds_needed, swap_spread_p

NAN = math.nan


def share_of_swaps(x: Floats, y: Floats, statistic: Callable[[Floats, Floats], Floats]) -> float:
    """All 2^n swaps, each as it stands."""
    swapped = np.array(list(itertools.product((False, True), repeat=len(x))))
    found = statistic(np.where(swapped, y, x), np.where(swapped, x, y))
    return float(np.mean(found >= found[0] * (1 - 1e-9)))


def squares_apart(x: Floats, y: Floats) -> Floats:
    return np.abs((x**2).sum(-1) - (y**2).sum(-1))


def variances_apart(x: Floats, y: Floats) -> Floats:
    """The difference of two variances over their sum."""
    return np.abs(x.var(-1) - y.var(-1)) / (x.var(-1) + y.var(-1))


def brute_force(x: Floats, y: Floats) -> float:
    n = len(x)
    centred = share_of_swaps(x - np.median(x), y - np.median(y), squares_apart)
    shifts = [0.0, *np.sort(x - y)[n // 4 : n - n // 4]]
    return max(centred, *(share_of_swaps(x - d, y, variances_apart) for d in shifts))


@pytest.mark.parametrize("n", [7, 8, 11])
@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_the_p_is_the_largest_share_of_swaps(n: int, apart: float) -> None:
    decided = 0
    for seed in range(20):
        x, y = np.random.default_rng([11, seed]).normal(size=(2, n))
        x = 0.1 * x + apart
        p, expected = float(swap_spread_p(x, y)), brute_force(x, y)
        assert p == pytest.approx(expected) if expected <= ALPHA else ALPHA < p <= expected + 1e-12
        decided += expected <= ALPHA
    assert decided >= 3, "the comparison below ALPHA is of several values"


def test_missing_seeds_and_recipes_change_places() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 4, 9)) * np.array([0.1, 1.0])[:, None, None]
    p = swap_spread_p(x, y)
    assert p.shape == (4,) and p == pytest.approx(swap_spread_p(y, x))
    holes = np.c_[np.full(4, NAN), x, np.full(4, 7.0)], np.c_[np.full(4, 3.0), y, np.full(4, NAN)]
    assert swap_spread_p(*holes).tolist() == p.tolist()
    assert swap_spread_p(1e-3 * x + 5, 1e-3 * y + 5) == pytest.approx(p)
    few = x.copy()
    few[2, 4:] = NAN
    assert [math.isnan(v) for v in swap_spread_p(few, y)] == [False, False, True, False]


def test_swaps_are_drawn_where_they_cannot_be_counted() -> None:
    x, y = np.random.default_rng(21).normal(size=(2, 14)) * np.array([[0.2], [1.0]])
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    gaps = (x - np.median(x)) ** 2 - (y - np.median(y)) ** 2
    centred = float((np.abs(signs @ gaps) >= abs(gaps.sum()) * (1 - 1e-12)).mean())
    sampled, exact = float(swap_spread_p(x, y)), float(swap_spread_p(x, y, family=160))  # 2^14 swaps: all of them
    assert exact >= centred and exact < 0.01, "this one is counted in full"
    assert abs(sampled - exact) <= 5 * math.sqrt(exact * (1 - exact) / 4096)
    assert swap_spread_p(x, y) == swap_spread_p(x, y)


def test_the_number_of_swaps_grows_with_the_family() -> None:
    x, y = np.r_[1.0, -1.0] * np.ones((10, 1)), np.zeros((10, 2))
    x = x.ravel() * np.linspace(1, 2, 20)
    y = y.ravel() + 1e-3 * np.random.default_rng(1).normal(size=20)
    assert swap_spread_p(x, y) == 1 / 4096
    assert swap_spread_p(x, y, family=205) == 1 / 32768 < ALPHA / 205


def test_seeds_needed_is_the_first_number_that_can_decide() -> None:
    """A recipe with no spread to speak of has the least p there is."""
    assert [seeds_needed(m) for m in (1, 2, 15, 51, 205, 255)] == [7, 8, 11, 12, 15, 15]
    rng = np.random.default_rng(4)
    for family in (1, 2, 3, 7, 15, 51):
        n = seeds_needed(family)
        for seeds, decides in ((n - 1, False), (n, True)):
            calm, wild = 1e-6 * rng.normal(size=seeds), rng.normal(size=seeds)
            assert swap_spread_p(calm, wild, family) == 2.0 ** (2 - seeds)
            assert (family * 2.0 ** (2 - seeds) < ALPHA) == decides


def test_a_difference_that_many_seeds_carry_is_found() -> None:
    rng = np.random.default_rng(12)
    calm, wild = rng.normal(0.9, 0.01, (2, 20))
    assert swap_spread_p(calm, rng.normal(0.9, 0.05, 20)) < 0.01
    wild[:7] = 0.02  # bimodal over seeds
    assert swap_spread_p(calm, wild) < 0.05


def test_one_outlying_seed_decides_pitman_morgan_but_not_a_swap() -> None:
    x, y = np.random.default_rng(12).normal(0.9, 0.01, (2, 20))
    y[7] = 0.02
    assert pitman_morgan(x, y).p < 1e-6
    assert swap_spread_p(x, y) > 0.05


# --- whole families without a difference; acceptance/stats_1.py does the same at length

Law = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def modes(high: float, at: float = 0.0) -> Law:
    return lambda rng, shape: at + (rng.random(shape) < high) + rng.normal(0, 0.01, shape)


NULLS: dict[str, tuple[Law, Law]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), lambda rng, shape: rng.normal(5, 1, shape)),
    "heavy tails": (lambda rng, shape: rng.standard_t(3, shape), lambda rng, shape: rng.standard_t(3, shape)),
    "80/20": (modes(0.8), modes(0.8)),
    "80/20 against 20/80": (modes(0.8), modes(0.2)),
    "80/20, moved": (modes(0.8), modes(0.8, 3)),
}


@pytest.mark.parametrize("kind", NULLS)
@pytest.mark.parametrize(("family", "seeds"), [(1, 8), (1, 20), (15, 12)])
def test_studies_without_a_difference_seldom_err(kind: str, family: int, seeds: int) -> None:
    """Of 150 families (1,500 of one test) too few err to say that more than 5 % do."""
    studies, rng = 1500 if family == 1 else 150, np.random.default_rng(22)
    x, y = (law(rng, (studies, family, seeds)) for law in NULLS[kind])
    errs = [bool(np.any(holm(p) < ALPHA)) for p in swap_spread_p(x, y, family)]
    low, _ = share_interval(sum(errs), studies, 0.9999)
    assert low <= ALPHA
    by_normal_theory = [bool(np.any(holm(p) < ALPHA)) for p in pitman_morgan(x, y).p]
    low, _ = share_interval(sum(by_normal_theory), studies, 0.9999)
    assert (low > ALPHA) == (kind != "normal"), "Pitman-Morgan errs wherever seeds are not normal"
