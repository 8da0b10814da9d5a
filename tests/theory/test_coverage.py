"""Coverage against closed forms of Gaussians, hand arithmetic and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from alignfirst.errors import InputError
from alignfirst.theory import coverage
from alignfirst.theory.tilt import cell_masses, mixture_log_density, square_grid

GRID = square_grid(3.0, 0.05)
Q_MEAN, Q_SD, P_MEAN, P_SD = np.array([0.3, -0.2]), 0.25, np.array([-0.1, 0.1]), 0.4
GAP = float(((Q_MEAN - P_MEAN) ** 2).sum())


def gaussian(mean: np.ndarray, sd: float) -> np.ndarray:
    return mixture_log_density(GRID, np.ones(1), mean[None], np.full((1, 2), sd))


def cross(sd: float, under: float) -> float:
    """E of log N(.; under^2) over a 2-D Gaussian of the given sd whose mean is GAP^(1/2) away."""
    return float(-np.log(2 * np.pi * under**2) - (2 * sd**2 + GAP) / (2 * under**2))


Q, P = gaussian(Q_MEAN, Q_SD), gaussian(P_MEAN, P_SD)
KL = 2 * np.log(P_SD / Q_SD) + (2 * Q_SD**2 + GAP) / (2 * P_SD**2) - 1


def test_precision_recall_and_kl_of_gaussians() -> None:
    assert coverage.precision(Q, P) == pytest.approx(cross(Q_SD, P_SD), abs=1e-9)
    assert coverage.recall(Q, P) == pytest.approx(cross(P_SD, Q_SD), abs=1e-9)
    assert coverage.kl(Q, P) == pytest.approx(KL, abs=1e-9)
    assert coverage.kl(P, P) == 0.0


def test_runs_in_front() -> None:
    both = coverage.kl(np.stack([Q, P]), P)
    np.testing.assert_allclose(both, [KL, 0.0], atol=1e-9)
    np.testing.assert_allclose(coverage.recall(np.stack([Q, P]), P)[0], coverage.recall(Q, P), rtol=1e-12)


def test_from_samples_within_five_standard_errors() -> None:
    rng = np.random.default_rng(0)
    x = Q_MEAN + Q_SD * rng.normal(size=(40_000, 2))
    logq, logp = (norm.logpdf(x, m, s).sum(-1) for m, s in ((Q_MEAN, Q_SD), (P_MEAN, P_SD)))
    kl = coverage.kl_from_samples(logq, logp)
    assert abs(kl.value - KL) < 5 * kl.standard_error
    precision = coverage.mean_log_likelihood(logp)
    assert abs(precision.value - cross(Q_SD, P_SD)) < 5 * precision.standard_error
    # Var of |x - P_MEAN|^2 / (2 P_SD^2): a scaled non-central chi-square
    variance = (4 * Q_SD**4 + 4 * Q_SD**2 * GAP) / (4 * P_SD**4)
    assert precision.standard_error == pytest.approx((variance / 40_000) ** 0.5, rel=0.05)


def test_standard_error_by_hand() -> None:
    estimate = coverage.mean_log_likelihood([-1.0, -3.0])  # sd with ddof 1 is sqrt(2)
    assert (estimate.value, estimate.standard_error) == (-2.0, pytest.approx(1.0))


def test_one_sample_has_no_standard_error_and_none_is_refused() -> None:
    estimate = coverage.mean_log_likelihood([[-1.0], [-2.0]])
    np.testing.assert_array_equal(estimate.value, [-1.0, -2.0])
    assert np.isnan(estimate.standard_error).all()
    for empty in (np.zeros((3, 0)), 1.0):
        with pytest.raises(InputError, match="at least one sample"):
            coverage.mean_log_likelihood(empty)


def test_missing_mass() -> None:
    half = np.where(GRID.x[:, None] < 0, -np.inf, Q)  # a density without mass on the left
    assert coverage.kl(Q, half) == np.inf
    assert coverage.recall(half, Q) == -np.inf
    right = cell_masses(half)
    assert coverage.kl(half, Q) == 0.0  # as densities given, equal wherever half has mass
    assert coverage.precision(half, half) == pytest.approx(float((right * Q).sum()), abs=1e-12)


def test_coverage_profile_by_hand() -> None:
    target, model = np.log([0.5, 0.3, 0.2]), np.array([np.log(0.5), np.log(0.3 / 50), -np.inf])
    profile = coverage.coverage_profile(target, model, np.array([5.0, 3.0, 2.0]), (1, 10, 100, 1e9))
    np.testing.assert_allclose(profile, [0.5, 0.5, 0.8, 0.8])
    assert coverage.coverage_profile(P, P, cell_masses(P)).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_coverage_profile_of_shifted_gaussians() -> None:
    # log p - log q = (d^2 - 2 d x) / (2 s^2) along the shift, x ~ N(0, s^2): covered from `edge` on
    s, d, n = 0.3, 1.0, np.array([10.0, 100.0, 1000.0])
    p, q = gaussian(np.zeros(2), s), gaussian(np.array([d, 0.0]), s)
    edge = (d**2 - 2 * s**2 * np.log(n)) / (2 * d)
    half_a_cell = 0.5 * 0.05 * norm.pdf(0, 0, s)  # the most that one edge within a column of cells can hide
    np.testing.assert_allclose(coverage.coverage_profile(p, q, cell_masses(p), n), norm.sf(edge / s), atol=half_a_cell)


def test_bad_profiles_are_refused() -> None:
    two = np.zeros(2)
    for weights in (two, np.array([-1.0, 2.0]), np.array([np.nan, 1.0])):
        with pytest.raises(InputError, match="weights"):
            coverage.coverage_profile(two, two, weights)
    with pytest.raises(InputError, match="n must be positive"):
        coverage.coverage_profile(two, two, np.ones(2), (0,))


def test_draws_by_hand() -> None:
    np.testing.assert_allclose(coverage.miss_probability([0.5, 0.0, 1.0, 1.0], [3, 9, 0, 2]), [0.125, 1.0, 1.0, 0.0])
    assert coverage.miss_probability(1e-12, 1e12) == pytest.approx(np.exp(-1), rel=1e-9)
    # 0.75 at mass 1/2 is exactly 2 draws; log(.05) / log(.98) = 148.3
    np.testing.assert_array_equal(
        coverage.draws_needed([0.5, 0.02, 0.0, 1.0], [0.75, 0.95, 0.5, 0.99]), [2, 149, np.inf, 1]
    )
    np.testing.assert_array_equal(coverage.draws_needed([0.0, 0.3], 0.0), [0.0, 0.0])


@pytest.mark.parametrize("mass", [0.05, 0.1, 0.2, 0.3, 0.6, 0.9])
def test_rounding_never_asks_for_one_draw_more(mass: float) -> None:
    counts = np.arange(1, int(np.log(1e-3) / np.log1p(-mass)) + 1)
    np.testing.assert_array_equal(coverage.draws_needed(mass, 1 - (1 - mass) ** counts), counts)


@given(mass=st.floats(0.01, 0.99), probability=st.floats(0.01, 0.999))
def test_draws_needed_is_the_fewest(mass: float, probability: float) -> None:
    count = 0
    miss = 1.0
    while 1 - miss < probability - 1e-9:  # brute force; the margin of 1e-9 is for exact ties
        count, miss = count + 1, miss * (1 - mass)
    got = coverage.draws_needed(mass, probability)
    assert got == count or coverage.miss_probability(mass, count) == pytest.approx(1 - probability, abs=2e-9)


def test_bad_draws_are_refused() -> None:
    with pytest.raises(InputError, match="draws must be"):
        coverage.miss_probability(0.1, -1)
    for bad in (1.0, -0.1, np.nan):
        with pytest.raises(InputError, match="probability must lie"):
            coverage.draws_needed(0.1, bad)


@pytest.mark.parametrize(
    ("got", "exact", "reference", "rollouts", "trap"),
    [
        (0.51, 0.1, 0.0, 0, None),  # it got there, whatever theory thinks
        (0.5, 0.9, 0.5, 1000, "exploration"),  # half is not above one half
        (0.0, 0.5, 0.1, 1000, "anchor"),
        (0.0, 0.2, 0.0, 1000, "anchor"),  # even a lucky optimiser cannot: not a matter of sampling
        (0.0, 0.9, 0.0099, 1000, "sampling"),
        (0.0, 0.9, 0.01, 1000, "exploration"),  # ten expected draws are enough to be no excuse
        (0.0, 1.0, 0.0, 10**9, "sampling"),
    ],
)
def test_traps(got: float, exact: float, reference: float, rollouts: float, trap: str | None) -> None:
    assert coverage.classify_trap(got, exact, reference, rollouts) == trap


def test_bad_traps_are_refused() -> None:
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(InputError, match="target mass"):
            coverage.classify_trap(0.1, bad, 0.1, 10)
    with pytest.raises(InputError, match="rollouts"):
        coverage.classify_trap(0.1, 0.1, 0.1, -1)
