from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from alignfirst.errors import InputError
from alignfirst.stats.intervals import (
    MIN_SEEDS,
    bootstrap,
    describe,
    holm,
    interquartile_mean,
    paired_t,
    pitman_morgan,
    share_interval,
    t_interval,
)

NAN = math.nan
P_VALUES = st.lists(st.one_of(st.just(NAN), st.sampled_from([0.0, 0.01, 0.04, 1.0]), st.floats(0, 1)), max_size=12)


def within_binomial_error(hits: int, n: int, p: float) -> bool:
    """Five standard errors of a share."""
    return abs(hits / n - p) <= 5 * math.sqrt(p * (1 - p) / n)


# --- means


def test_t_interval_agrees_with_scipy_and_skips_missing_seeds() -> None:
    x = np.random.default_rng(1).normal(3, 2, (4, 9))
    x[1, 3] = NAN
    x[2, :3] = np.inf
    d = describe(x)
    for g in range(4):
        there = x[g][np.isfinite(x[g])]
        interval = reference.ttest_1samp(there, 0).confidence_interval(0.95)
        assert d.n[g] == len(there)
        assert d.mean[g] == pytest.approx(there.mean(), rel=1e-14)
        assert d.sd[g] == pytest.approx(there.std(ddof=1), rel=1e-13)
        assert (d.low[g], d.high[g]) == pytest.approx(tuple(interval), rel=1e-12)


@pytest.mark.parametrize("n", range(8))
def test_an_interval_is_refused_below_five_seeds(n: int) -> None:
    d = describe(np.arange(float(n)))
    assert d.n == n
    assert np.isnan(d.low) == np.isnan(d.high) == (n < 5)
    assert np.isnan(d.sd) == (n < 2)
    assert np.isnan(d.mean) == (n == 0)
    t = paired_t(np.arange(float(n)), np.zeros(n))
    assert np.isnan(t.p) == np.isnan(t.low) == (n < 5)
    m = pitman_morgan(np.arange(float(n)), np.arange(float(n)) ** 2)
    assert np.isnan(m.p) == np.isnan(m.low) == (n < 5)


def test_equal_values_have_no_interval() -> None:
    d = describe(np.full(20, 0.1))
    assert d.mean == pytest.approx(0.1)
    assert np.isnan(d.low) and np.isnan(d.high)
    assert not np.isnan(describe(np.r_[np.full(19, 0.1), 0.1 + 1e-9]).low)


@pytest.mark.parametrize("n", range(1, 14))
def test_interquartile_mean_is_the_trimmed_mean_of_rliable(n: int) -> None:
    x = np.random.default_rng(n).standard_cauchy((3, n))
    assert interquartile_mean(x) == pytest.approx(reference.trim_mean(x, 0.25, axis=-1), rel=1e-13)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100.0, 1, 2, -50]) == 1.5
    assert interquartile_mean([100.0, 1, 2, -50, 6]) == 3.0  # one cut at each end
    assert interquartile_mean([100.0, 1, NAN, 2, -50]) == 1.5
    assert np.isnan(interquartile_mean([NAN, NAN]))


def test_t_interval_covers_as_often_as_it_says() -> None:
    n, runs = 6, 20_000
    x = np.random.default_rng(2).normal(1.0, 3.0, (runs, n))
    low, high = t_interval(np.full(runs, n), x.mean(-1), x.std(-1, ddof=1))
    assert within_binomial_error(int(((low <= 1) & (high >= 1)).sum()), runs, 0.95)


# --- pairs


def test_paired_t_agrees_with_scipy_on_the_common_seeds() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 5, 12))
    x[1, 2], y[1, 5], y[2, 0] = NAN, NAN, np.inf
    t = paired_t(x, y)
    for g in range(5):
        both = np.isfinite(x[g]) & np.isfinite(y[g])
        expected = reference.ttest_rel(x[g][both], y[g][both])
        assert t.n[g] == both.sum()
        assert t.p[g] == pytest.approx(expected.pvalue, rel=1e-10)
        assert (t.low[g], t.high[g]) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-10)
    assert not t.degenerate.any()


def test_differences_that_are_all_the_same_fall_back_to_the_sign_test() -> None:
    base = np.random.default_rng(4).uniform(size=20)
    for shift in (0.3, -0.3):
        t = paired_t(base + shift, base)  # the same only to rounding
        assert t.degenerate and np.isnan(t.low) and np.isnan(t.high)
        assert t.p == reference.binomtest(20, 20).pvalue
    assert paired_t(base[:5] + 1, base[:5]).p == 2 * 0.5**5  # five seeds alone cannot decide at 0.05


def test_recipes_that_end_the_same_differ_in_nothing() -> None:
    base = np.random.default_rng(5).uniform(size=20)
    for other in (base, base * (1 + 1e-16), base + 1e-17 * np.arange(20)):
        t = paired_t(base, other)
        assert t.degenerate and t.p == 1
    assert paired_t(base, base + 1e-9 * np.arange(20)).p < 0.05


# --- spread


def paired_normals(runs: int, n: int, ratio: float, rho: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).normal(size=(2, runs, n))
    return ratio * (rho * b + math.sqrt(1 - rho * rho) * a), b


def test_pitman_morgan_is_the_correlation_of_sum_and_difference() -> None:
    x, y = paired_normals(6, 15, 1.7, 0.6, 6)
    m = pitman_morgan(x, y)
    for g in range(6):
        assert m.p[g] == pytest.approx(reference.pearsonr(x[g] - y[g], x[g] + y[g]).pvalue, rel=1e-9)
        assert m.estimate[g] == pytest.approx(x[g].std(ddof=1) / y[g].std(ddof=1), rel=1e-13)


def test_pitman_morgan_interval_is_its_own_test_turned_round() -> None:
    """A ratio is inside exactly when scaling it away is not refused: at the ends p is 0.05."""
    x, y = paired_normals(6, 11, 0.4, 0.8, 7)
    m = pitman_morgan(x, y)
    for end in (m.low, m.high):
        assert pitman_morgan(x / end[:, None], y).p == pytest.approx(np.full(6, 0.05), rel=1e-9)
    swapped = pitman_morgan(y, x)
    assert swapped.estimate * m.estimate == pytest.approx(np.ones(6))
    assert swapped.low * m.high == pytest.approx(np.ones(6))
    assert swapped.p == pytest.approx(m.p)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_pitman_morgan_covers_as_often_as_it_says(rho: float) -> None:
    runs = 20_000
    m = pitman_morgan(*paired_normals(runs, 8, 0.5, rho, 8))
    assert within_binomial_error(int(((m.low <= 0.5) & (m.high >= 0.5)).sum()), runs, 0.95)
    null = pitman_morgan(*paired_normals(runs, 8, 1.0, rho, 9))
    assert within_binomial_error(int((null.p < 0.05).sum()), runs, 0.05)


def test_pitman_morgan_says_where_it_is_undefined() -> None:
    x, flat = np.random.default_rng(10).normal(size=9), np.full(9, 0.1)
    still = pitman_morgan(flat, x)
    assert still.degenerate and still.estimate == 0 and np.isnan(still.p) and np.isnan(still.low)
    endless = pitman_morgan(x, flat)
    assert endless.degenerate and np.isnan(endless.estimate) and np.isnan(endless.p)
    assert np.isnan(pitman_morgan(flat, flat).p)
    tied = pitman_morgan(3 * x, x)  # perfect correlation: t would be infinite
    assert tied.degenerate and np.isnan(tied.p) and tied.estimate == pytest.approx(3)
    shifted = pitman_morgan(x + 5, x)
    assert shifted.degenerate and shifted.p == 1 and shifted.estimate == pytest.approx(1)


# --- many tests at once


@given(P_VALUES)
def test_holm_is_its_definition(p: list[float]) -> None:
    adjusted = holm(p)
    known = sorted(v for v in p if not math.isnan(v))
    for value, got in zip(p, adjusted, strict=True):
        if math.isnan(value):
            assert math.isnan(got)
            continue
        steps = [min(1.0, (len(known) - k) * v) for k, v in enumerate(known) if v <= value]
        assert got == max(steps)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_order(p: list[float], random: object) -> None:
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert np.array_equal(holm([p[i] for i in order]), holm(p)[order], equal_nan=True)


def test_holm_by_hand() -> None:
    assert holm([]).shape == (0,)
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.02, NAN]) == pytest.approx([0.04, 0.04, NAN], nan_ok=True)
    assert np.isnan(holm([NAN, NAN])).all()


@pytest.mark.parametrize("n", [5, 20])
def test_share_interval_is_the_exact_binomial_one(n: int) -> None:
    low, high = share_interval(np.arange(n + 1), n)
    for won in range(n + 1):
        expected = reference.binomtest(won, n).proportion_ci(0.95, "exact")
        assert (low[won], high[won]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    for p in np.linspace(0.01, 0.99, 25):  # exact coverage, no simulation
        inside = (low <= p) & (p <= high)
        assert reference.binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95
    assert np.isnan(share_interval(2, MIN_SEEDS - 1)[0])


# --- bootstrap


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_agrees_with_scipy_on_the_same_draws(method: str) -> None:
    x = np.random.default_rng(13).exponential(size=20)
    got = bootstrap(x, lambda v: v.mean(-1), seed=5, draws=2000, method=method)
    expected = reference.bootstrap((x,), np.mean, n_resamples=2000, method=method, rng=np.random.default_rng(5))
    assert got == pytest.approx(tuple(expected.confidence_interval), rel=1e-9)


def test_bootstrap_of_the_interquartile_mean_covers() -> None:
    runs, rng = 300, np.random.default_rng(14)
    hits = 0
    for seed in range(runs):
        low, high = bootstrap(rng.normal(size=40), interquartile_mean, seed=seed, draws=400)
        hits += low <= 0 <= high
    assert hits / runs > 0.9 - 5 * math.sqrt(0.9 * 0.1 / runs)  # bootstrap intervals are a little short at n = 40


def test_bootstrap_is_seeded_and_refuses() -> None:
    x = np.random.default_rng(15).normal(size=12)

    def mean(v: np.ndarray) -> np.ndarray:
        return v.mean(-1)

    assert bootstrap(x, mean, seed=1) == bootstrap(x, mean, seed=1)
    assert bootstrap(x, mean, seed=1) != bootstrap(x, mean, seed=2)
    assert bootstrap(np.r_[x, NAN], mean, seed=1) == bootstrap(x, mean, seed=1)
    assert all(map(math.isnan, bootstrap(x[:4], mean, seed=1)))
    assert all(map(math.isnan, bootstrap(np.ones(9), mean, seed=1)))
    with pytest.raises(InputError, match="bca or percentile"):
        bootstrap(x, mean, seed=1, method="magic")
