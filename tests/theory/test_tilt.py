"""Exact optima against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logsumexp

from alignfirst.errors import InputError
from alignfirst.theory import tilt

GRID = tilt.square_grid()
COARSE = tilt.square_grid(3.0, 0.05)
EVERYWHERE = np.ones(GRID.shape)

probabilities = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6)


def gaussian(mean: tuple[float, float], sd: float, grid: tilt.Grid = GRID) -> np.ndarray:
    return tilt.mixture_log_density(grid, np.ones(1), np.array([mean]), np.full((1, 2), sd))


def brute_log_density(grid: tilt.Grid, w: np.ndarray, means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    z = (grid.points[:, :, None] - means) / sds
    return logsumexp((-0.5 * z * z - np.log(sds) - 0.5 * np.log(2 * np.pi)).sum(-1), b=w, axis=-1)


# Behaviours


def test_two_behaviours_by_hand() -> None:
    # odds .02/.98 * e^(1/.2) = 0.020408 * 148.4132 = 3.028841 -> 0.751790
    np.testing.assert_allclose(tilt.categorical_tilt([0.98, 0.02], [0.0, 1.0], 0.2), [0.248210, 0.751790], atol=1e-6)
    np.testing.assert_allclose(tilt.depth(0.02), np.log(49.0))
    np.testing.assert_allclose(tilt.recovery_threshold(0.02, 1.0), 0.256949, atol=1e-6)  # 1 / 3.891820


@given(e=st.floats(1e-9, 0.499), gap=st.floats(1e-3, 10.0))
def test_half_of_the_mass_at_the_threshold(e: float, gap: float) -> None:
    beta_c = tilt.recovery_threshold(e, gap)
    assert tilt.categorical_tilt([1 - e, e], [0.0, gap], beta_c)[1] == pytest.approx(0.5, abs=1e-9)
    assert tilt.categorical_tilt([1 - e, e], [0.0, gap], 0.9 * beta_c)[1] > 0.5
    assert tilt.categorical_tilt([1 - e, e], [0.0, gap], 1.1 * beta_c)[1] < 0.5


@given(masses=probabilities, data=st.data(), beta=st.floats(1e-3, 1e3), shift=st.floats(-100.0, 100.0))
def test_tilt_is_a_distribution_and_ignores_shift_and_scale(
    masses: list[float], data: st.DataObject, beta: float, shift: float
) -> None:
    rewards = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=len(masses), max_size=len(masses))))
    optimum = tilt.categorical_tilt(masses, rewards, beta)
    assert optimum.sum() == pytest.approx(1.0, abs=1e-12)
    assert (optimum >= 0).all()
    # log-ratios carry an error of one part in 1e16 of shift / beta
    np.testing.assert_allclose(tilt.categorical_tilt(masses, rewards + shift, beta), optimum, atol=1e-10)
    np.testing.assert_allclose(tilt.categorical_tilt(7.0 * np.array(masses), rewards, beta), optimum, atol=1e-12)


@given(masses=probabilities, data=st.data(), betas=st.tuples(st.floats(1e-2, 1e2), st.floats(1e-2, 1e2)))
def test_mean_reward_falls_as_beta_rises(masses: list[float], data: st.DataObject, betas: tuple[float, float]) -> None:
    rewards = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=len(masses), max_size=len(masses))))
    low, high = sorted(betas)
    assert tilt.categorical_tilt(masses, rewards, low) @ rewards >= (
        tilt.categorical_tilt(masses, rewards, high) @ rewards - 1e-12
    )


def test_no_beta_overflows_and_no_mass_appears() -> None:
    with np.errstate(all="raise", under="ignore", divide="ignore"):
        np.testing.assert_array_equal(tilt.categorical_tilt([0.5, 0.5, 0.0], [0.0, 1.0, 9.0], 1e-9), [0.0, 1.0, 0.0])


def test_betas_and_masses_broadcast() -> None:
    masses = np.array([[0.9, 0.1], [0.5, 0.5]])
    got = tilt.categorical_tilt(masses, [0.0, 1.0], np.array([0.5, 2.0]))
    np.testing.assert_allclose(got[:, 1], [expit(np.log(1 / 9) + 2.0), expit(0.5)])


def test_thresholds_at_the_edges() -> None:
    thresholds = tilt.recovery_threshold([0.5, 0.7, 1.0, 0.0, 0.1], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(thresholds, [np.inf, np.inf, np.inf, 0, 0])
    np.testing.assert_array_equal(tilt.depth([0.0, 0.5, 1.0]), [np.inf, 0.0, -np.inf])


@pytest.mark.parametrize("beta", [0.0, -1.0, np.nan, np.inf])
def test_bad_beta_is_refused(beta: float) -> None:
    with pytest.raises(InputError, match="beta must be finite and > 0"):
        tilt.categorical_tilt([0.5, 0.5], [0.0, 1.0], beta)
    with pytest.raises(InputError, match="beta must be finite and > 0"):
        tilt.tilt_on_grid(gaussian((0, 0), 0.3), EVERYWHERE, beta, GRID, EVERYWHERE)


@pytest.mark.parametrize(
    ("masses", "rewards"),
    [([0.5, -0.1], [0, 1]), ([0.0, 0.0], [0, 1]), ([np.nan, 1], [0, 1]), ([0.5, 0.5], [0, np.inf])],
)
def test_bad_behaviours_are_refused(masses: list[float], rewards: list[float]) -> None:
    with pytest.raises(InputError, match="must be finite"):
        tilt.categorical_tilt(masses, rewards, 1.0)


def test_bad_masses_and_gaps_are_refused() -> None:
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(InputError, match="probability"):
            tilt.depth(bad)
    with pytest.raises(InputError, match="gap"):
        tilt.recovery_threshold(0.1, np.nan)


# The grid


def test_grid_is_square_and_its_step_divides_the_width() -> None:
    assert GRID.shape == (241, 241)
    assert GRID.cell == pytest.approx(0.025**2)
    np.testing.assert_allclose(GRID.points[7, 200], [GRID.x[7], GRID.y[200]])
    assert tilt.square_grid(1.0, 0.3).x.tolist() == pytest.approx(np.linspace(-1, 1, 8).tolist())  # 6.67 -> 7 steps
    with pytest.raises(InputError, match="half_width / step"):
        tilt.square_grid(3.0, 1e-9)
    with pytest.raises(InputError, match="step must be"):
        tilt.square_grid(3.0, 0.0)


@pytest.mark.parametrize("radius", [0.25, 0.474341649])
def test_area_of_discs(radius: float) -> None:
    one = tilt.disc_weights(GRID, [[1.0, 1.0]], radius)
    assert one.min() == 0.0
    assert one.max() == 1.0
    assert one.sum() * GRID.cell == pytest.approx(np.pi * radius**2, rel=5e-4)
    d = radius  # two discs whose centres are one radius apart share a lens
    lens = 2 * radius**2 * np.arccos(d / (2 * radius)) - d / 2 * np.sqrt(4 * radius**2 - d**2)
    two = tilt.disc_weights(GRID, [[0.1, 0.0], [0.1, d]], radius)
    assert two.sum() * GRID.cell == pytest.approx(2 * np.pi * radius**2 - lens, rel=5e-4)


@pytest.mark.parametrize("step", [0.025, 0.05])
@pytest.mark.parametrize("sd", [0.025**0.5, 0.12, 0.06])
def test_mass_of_a_gaussian_in_a_disc(step: float, sd: float) -> None:
    grid, radius = tilt.square_grid(3.0, step), 0.474341649
    weights = tilt.disc_weights(grid, [[0.5, -0.3]], radius)
    got = float((np.exp(gaussian((0.5, -0.3), sd, grid)) * weights).sum() * grid.cell)
    flux = radius**2 / sd**4 * np.exp(-(radius**2) / (2 * sd**2))  # perimeter x |d density / d r| on the rim
    assert got == pytest.approx(1 - np.exp(-(radius**2) / (2 * sd**2)), abs=1.5 * step**2 / 24 * flux + 1e-6)


def test_bad_discs_are_refused() -> None:
    for centres in ([], [1.0, 2.0], [[np.nan, 0.0]]):
        with pytest.raises(InputError, match="centres"):
            tilt.disc_weights(COARSE, centres, 0.3)
    with pytest.raises(InputError, match="radius"):
        tilt.disc_weights(COARSE, [[0.0, 0.0]], 0.0)


# Densities


@pytest.mark.parametrize("sds", [(0.1, 0.3), (0.02, 0.05)])  # the second underflows on two thirds of the grid
def test_mixture_density_equals_brute_force(sds: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    w, means = rng.dirichlet(np.ones(5)), rng.uniform(-1, 1, (5, 2))
    w[2] = 0.0
    s = rng.uniform(*sds, (5, 2))
    expected = brute_log_density(COARSE, w, means, s)
    assert (expected.min() < -745) == (sds[0] < 0.1)  # exp() of it is 0: the slow path is on trial
    np.testing.assert_allclose(tilt.mixture_log_density(COARSE, w, means, s), expected, rtol=1e-13, atol=1e-12)


def test_runs_in_front_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    w, means = rng.dirichlet(np.ones(4), (2, 3)), rng.uniform(-1, 1, (2, 3, 4, 2))
    sds = rng.uniform(0.02, 0.3, (2, 3, 4, 2))
    together = tilt.mixture_log_density(COARSE, w, means, sds)
    assert together.shape == (2, 3, 121, 121)
    for r in np.ndindex(2, 3):
        alone = tilt.mixture_log_density(COARSE, w[r], means[r], sds[r])
        np.testing.assert_allclose(together[r], alone, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize(("sd", "error"), [(0.025, 2e-8), (0.02, 1.5e-5), (0.0125, 0.03)])
def test_stated_error_of_the_quadrature(sd: float, error: float) -> None:
    bound = 4 * np.exp(-2 * (np.pi * sd / 0.025) ** 2)
    assert bound < error
    worst = max(abs(np.exp(gaussian((a, a), sd)).sum() * GRID.cell - 1) for a in (0.0, 0.004, 0.0125))
    assert worst <= 1.05 * bound


# The optimum on a grid


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_linear_reward_shifts_a_gaussian(beta: float) -> None:
    mean, sd, slope = np.array([0.2, -0.4]), 0.25, np.array([0.6, 0.3])
    optimum = tilt.tilt_on_grid(gaussian((0.2, -0.4), sd), GRID.points @ slope, beta, GRID, EVERYWHERE)
    moved, energy = mean + sd**2 * slope / beta, float(slope @ slope) * sd**2
    assert optimum.reward == pytest.approx(float(slope @ moved), abs=1e-9)
    assert optimum.reward_sd == pytest.approx(energy**0.5, abs=1e-9)
    assert optimum.kl == pytest.approx(energy / (2 * beta**2), abs=1e-9)
    assert optimum.log_z == pytest.approx(float(slope @ mean) / beta + energy / (2 * beta**2), abs=1e-9)
    assert optimum.target_mass == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(optimum.log_density, gaussian(tuple(moved), sd), atol=1e-8)


def test_quadratic_reward_sharpens_a_gaussian() -> None:
    mean, sd, centre, width, beta = np.array([0.5, 0.0]), 0.4, np.array([-0.3, 0.2]), 0.5, 0.3
    reward = -((GRID.points - centre) ** 2).sum(-1) / (2 * width**2)
    optimum = tilt.tilt_on_grid(gaussian((0.5, 0.0), sd), reward, beta, GRID, EVERYWHERE)
    a, b = 1 / sd**2, 1 / (beta * width**2)
    new_mean, new_sd = (a * mean + b * centre) / (a + b), (a + b) ** -0.5
    np.testing.assert_allclose(optimum.log_density, gaussian(tuple(new_mean), new_sd), atol=1e-8)
    gap = float(((mean - new_mean) ** 2).sum())
    kl = (new_sd / sd) ** 2 - 1 + gap / (2 * sd**2) + 2 * np.log(sd / new_sd)
    assert optimum.kl == pytest.approx(kl, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(beta=st.floats(0.01, 10.0), shift=st.floats(-50.0, 50.0))
def test_optimum_on_a_grid_ignores_a_shift_of_reward(beta: float, shift: float) -> None:
    reward = np.exp(-((COARSE.points - 1) ** 2).sum(-1) / 0.125)
    args = beta, COARSE, tilt.disc_weights(COARSE, [[1.0, 1.0]], 0.4)
    plain, moved = (tilt.tilt_on_grid(gaussian((0, 0), 0.4, COARSE), reward + s, *args) for s in (0.0, shift))
    assert np.exp(plain.log_density).sum() * COARSE.cell == pytest.approx(1.0, abs=1e-10)
    assert moved.reward == pytest.approx(plain.reward + shift, abs=1e-9)
    assert moved.target_mass == pytest.approx(plain.target_mass, abs=1e-9)
    assert moved.kl == pytest.approx(plain.kl, abs=1e-8)


def two_narrow(e: float) -> tuple[np.ndarray, np.ndarray]:
    """Reference with mass e near (1, 1), and the disc of radius 0.4 around it."""
    means = np.array([[-1.0, 0.0], [1.0, 1.0]])
    logp = tilt.mixture_log_density(GRID, np.array([1 - e, e]), means, np.full((2, 2), 0.05))
    return logp, tilt.disc_weights(GRID, [[1.0, 1.0]], 0.4)


@pytest.mark.parametrize("e", [1e-30, 1e-4, 0.02, 0.3, 0.49])
def test_beta_c_of_two_narrow_gaussians(e: float) -> None:
    logp, target = two_narrow(e)
    reward = 0.7 * (((GRID.points - 1) ** 2).sum(-1) < 0.45**2)  # constant on each of the two
    expected = 0.7 / np.log((1 - e) / e)
    got = tilt.beta_c_on_grid(logp, reward.astype(float), GRID, target)
    assert got == pytest.approx(expected, rel=1e-7)
    assert tilt.tilt_on_grid(logp, reward, got, GRID, target).target_mass == pytest.approx(0.5, abs=1e-6)


def test_beta_c_halves_the_mass_of_a_smooth_reward_and_of_an_abyss() -> None:
    reward = np.exp(-((GRID.points - 1) ** 2).sum(-1) / 0.125)
    target = tilt.disc_weights(GRID, [[1.0, 1.0]], 0.474)
    for logp in (two_narrow(0.02)[0], gaussian((-0.2, 0.0), 0.4), gaussian((-1.0, -1.0), 0.04)):  # the last: ~600 nats
        beta_c = tilt.beta_c_on_grid(logp, reward, GRID, target)
        assert tilt.tilt_on_grid(logp, reward, beta_c, GRID, target).target_mass == pytest.approx(0.5, abs=1e-6)


def test_beta_c_at_the_edges() -> None:
    logp, target = two_narrow(0.6)
    reward = np.exp(-((GRID.points - 1) ** 2).sum(-1))
    assert tilt.beta_c_on_grid(logp, reward, GRID, target) == np.inf
    assert tilt.beta_c_on_grid(logp, reward, GRID, EVERYWHERE) == np.inf
    logp, target = two_narrow(0.02)
    assert tilt.beta_c_on_grid(logp, -reward, GRID, target) == 0.0
    assert tilt.beta_c_on_grid(logp, reward, GRID, 0.0 * target) == 0.0


def test_the_largest_crossing_is_meant_where_a_rival_wins_at_small_beta() -> None:
    # masses .6, .1, .3 and rewards 0, 1.2, 1: the third has half of the mass only for sharpness between two roots
    centres = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    logp = tilt.mixture_log_density(GRID, np.array([0.6, 0.1, 0.3]), centres, np.full((3, 2), 0.05))
    discs = [tilt.disc_weights(GRID, c[None], 0.5) for c in centres]
    got = tilt.beta_c_on_grid(logp, 1.2 * discs[1] + discs[2], GRID, discs[2])
    sharpness = np.linspace(0.01, 50, 500_000)
    odds = 0.3 * np.exp(sharpness) - 0.6 - 0.1 * np.exp(1.2 * sharpness)
    assert (np.diff(odds > 0) != 0).sum() == 2
    assert 1 / got == pytest.approx(sharpness[np.argmax(odds > 0)], abs=2e-4)


@pytest.mark.parametrize("first", np.linspace(3.0, 9.0, 7))
def test_crossings_that_lie_a_third_apart_are_told_apart(first: float) -> None:
    """Rewards 0, 1.2 and 1: masses are solved so that the third has half at sharpness `first` and 1.35 times that."""
    roots = first * np.array([1.0, 1.35])
    a, b = np.linalg.solve(np.stack([np.ones(2), np.exp(1.2 * roots)], 1), np.exp(roots))
    masses = np.array([a, b, 1.0]) / (a + b + 1.0)
    assert (masses > 0).all()
    centres = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    logp = tilt.mixture_log_density(COARSE, masses, centres, np.full((3, 2), 0.1))
    discs = [tilt.disc_weights(COARSE, c[None], 0.8) for c in centres]
    got = tilt.beta_c_on_grid(logp, 1.2 * discs[1] + discs[2], COARSE, discs[2])
    assert got == pytest.approx(1 / first, rel=1e-4)


def test_bad_fields_are_refused() -> None:
    logp, target = two_narrow(0.02)
    with pytest.raises(InputError, match="grid's shape"):
        tilt.tilt_on_grid(logp, np.ones(3), 0.1, GRID, target)
    with pytest.raises(InputError, match="grid's shape"):
        tilt.beta_c_on_grid(logp, np.ones(3), GRID, target)
    with pytest.raises(InputError, match="NaN"):
        tilt.tilt_on_grid(np.full(GRID.shape, np.nan), EVERYWHERE, 0.1, GRID, target)
    with pytest.raises(InputError, match="NaN"):
        tilt.beta_c_on_grid(logp, np.full(GRID.shape, np.nan), GRID, target)
