"""Predicted end states against behaviours by hand, closed forms of tilted Gaussians, and the categorical prediction."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.errors import InputError
from alignfirst.study.config.recipe import ALIGN, DISTIL, RECIPES, Stage
from alignfirst.theory import predict
from alignfirst.theory.projection import Mixture
from alignfirst.theory.tilt import disc_weights, mixture_log_density, square_grid, tilt_on_grid

GRID = square_grid(3.0, 0.05)
FINE = square_grid(3.0, 0.025)
CENTRES = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
MASSES = np.array([0.5, 0.3, 0.15, 0.05])
TARGET = [[1.0, 1.0]]
P_TARGET = np.ones(1), np.array(TARGET), np.full((1, 2), 0.1)

P_STAR_MODES = np.array([[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if (x, y) != (0.0, 0.0)])
P_STAR = np.array([0.2, 0.06, 0.2, 0.06, 0.2, 0.2, 0.06, 0.02]), P_STAR_MODES, np.full((8, 2), 0.025**0.5)


def plateau(points: np.ndarray) -> np.ndarray:
    """1 within 0.8 of the target: constant on each of four narrow, well separated components."""
    return (((points - 1.0) ** 2).sum(-1) < 0.64).astype(float)


def hill(points: np.ndarray) -> np.ndarray:
    return np.exp(-((points - 1.0) ** 2).sum(-1) / (2 * 0.25**2))


def on_p_star(recipe: str, beta: float | None, **options: Any) -> list[predict.Predicted]:
    options = {"selectivity": 3.0, "components": 4, "p_target": (np.ones(1), np.array(TARGET), P_STAR[2][:1])} | options
    return predict.predict_stages(RECIPES[recipe], *P_STAR, hill, TARGET, 0.4743, beta, **options)


# Behaviours


def test_both_orders_by_hand() -> None:
    # tilt by e^(1/.5) = 7.389: .36945 / 1.31945 = .28000; its cube over the sum of cubes .021952 / .089593 = .24503
    # the other way round: .000125 * 7.389 / (.155375 + .000125 * 7.389) = .005909
    tilted = MASSES * [1, 1, 1, np.exp(2.0)]
    tilted /= tilted.sum()
    sharp = MASSES**3 / (MASSES**3).sum()
    align_distil = predict.predict_categorical([ALIGN, DISTIL], MASSES, [0, 0, 0, 1], 0.5, 3.0)
    distil_align = predict.predict_categorical([DISTIL, ALIGN], MASSES, [0, 0, 0, 1], 0.5, 3.0)
    assert align_distil.shape == (3, 4)
    np.testing.assert_allclose(align_distil, [MASSES, tilted, tilted**3 / (tilted**3).sum()])
    late = sharp * [1, 1, 1, np.exp(2.0)]
    np.testing.assert_allclose(distil_align, [MASSES, sharp, late / late.sum()])
    assert align_distil[-1, 3] == pytest.approx(0.24503, abs=1e-5)
    assert distil_align[-1, 3] == pytest.approx(0.005909, abs=1e-6)


@given(e=st.floats(0.001, 0.4), beta=st.floats(0.05, 5.0), s=st.floats(1.0, 4.0))
def test_sharpening_after_is_tilting_with_a_smaller_beta(e: float, beta: float, s: float) -> None:
    # (e exp(r / beta))^s = e^s exp(r / (beta / s)): align-distil at beta is distil-align at beta / s
    first = predict.predict_categorical([ALIGN, DISTIL], [1 - e, e], [0, 1], beta, s)[-1]
    second = predict.predict_categorical([DISTIL, ALIGN], [1 - e, e], [0, 1], beta / s, s)[-1]
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_anchored_rehearsed_and_leading_axes() -> None:
    rewards = np.array([0, 0, 0, 1.0])
    anchored = predict.predict_categorical(RECIPES["distil-align-anchored"], MASSES, rewards, 0.5, 3.0)
    np.testing.assert_allclose(anchored[-1], predict.predict_categorical([ALIGN], MASSES, rewards, 0.5, 3.0)[-1])
    rehearsed = predict.predict_categorical(
        RECIPES["distil-align-rehearsed"], MASSES, rewards, 0.5, 3.0, 0.1, p_target=[0, 0, 0, 2.0]
    )
    np.testing.assert_allclose(rehearsed[1], 0.9 * MASSES**3 / (MASSES**3).sum() + [0, 0, 0, 0.1])
    both = predict.predict_categorical([DISTIL], np.stack([MASSES, MASSES[::-1]]), rewards, None, 3.0)
    assert both.shape == (2, 2, 4)
    np.testing.assert_allclose(both[1, 0], both[1, 1, ::-1])


def test_sharpen() -> None:
    np.testing.assert_allclose(predict.sharpen([3.0, 1.0], 2.0), [0.9, 0.1])
    np.testing.assert_allclose(predict.sharpen([1e-200, 1e-200, 0.0], 4.0), [0.5, 0.5, 0.0])
    for bad in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(InputError, match="weights"):
            predict.sharpen(bad, 1.0)
    with pytest.raises(InputError, match="selectivity"):
        predict.sharpen([0.5, 0.5], 0.0)


# A tilted mixture


@pytest.mark.parametrize("beta", [0.05, 0.3])
def test_tilted_gaussians_in_closed_form(beta: float) -> None:
    centre, width = np.array([0.5, 0.5]), 0.4
    reward = -((FINE.points - centre) ** 2).sum(-1) / (2 * width**2)
    mixture = Mixture(np.array([0.7, 0.3]), np.array([[-0.5, 0.2], [0.8, 0.9]]), np.array([[0.3, 0.15], [0.1, 0.2]]))
    tilted = predict.tilt_mixture(mixture, reward, beta, FINE)
    a, b = mixture.sds**-2.0, 1 / (beta * width**2)
    np.testing.assert_allclose(tilted.means, (a * mixture.means + b * centre) / (a + b), atol=1e-9)
    np.testing.assert_allclose(tilted.sds, (a + b) ** -0.5, atol=1e-9)
    spread = mixture.sds**2 + 1 / b
    log_z = (0.5 * np.log(1 / b / spread) - (mixture.means - centre) ** 2 / (2 * spread)).sum(1)
    weights = mixture.weights * np.exp(log_z)
    np.testing.assert_allclose(tilted.weights, weights / weights.sum(), atol=1e-9)
    # quadratic rewards keep a Gaussian Gaussian, so the mixture is pi* itself
    exact = tilt_on_grid(mixture_log_density(FINE, *mixture), reward, beta, FINE, np.ones(FINE.shape))
    np.testing.assert_allclose(mixture_log_density(FINE, *tilted), exact.log_density, atol=1e-7)


def test_components_beyond_the_reach_of_the_reward() -> None:
    # E_k[exp(R / beta)] is about exp(-1400) for these: both integrals underflow, their ratio does not
    centre, tilted_sd, sd = np.array([1.0, 1.0]), 0.05, 0.035
    reward = -((FINE.points - centre) ** 2).sum(-1) / (2 * tilted_sd**2)
    mixture = Mixture(np.array([0.4, 0.6]), np.array([[-1.3, -1.2], [-1.3, -1.21]]), np.full((2, 2), sd))
    tilted = predict.tilt_mixture(mixture, reward, 1.0, FINE)
    log_z = -((mixture.means - centre) ** 2).sum(1) / (2 * (sd**2 + tilted_sd**2))
    assert log_z.max() < -1000
    odds = np.log(0.4 / 0.6) + log_z[0] - log_z[1]
    assert np.log(tilted.weights[0] / tilted.weights[1]) == pytest.approx(odds, abs=1e-6)
    a, b = sd**-2.0, tilted_sd**-2.0
    np.testing.assert_allclose(tilted.means, (a * mixture.means + b * centre) / (a + b), atol=1e-6)
    np.testing.assert_allclose(tilted.sds, (a + b) ** -0.5, atol=1e-5)


def test_bad_beta_is_refused() -> None:
    for beta in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="beta"):
            on_p_star("align-only", beta)


# Recipes


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_separated_mixtures_equal_behaviours(recipe: str, beta: float) -> None:
    # a student of the teacher's size, a reward that is constant on every component: nothing but the weights can move
    sds = np.full((4, 2), 0.1)
    behaviours = predict.predict_categorical(
        RECIPES[recipe], MASSES, [0, 0, 0, 1], beta, 2.0, 0.05, p_target=[0, 0, 0, 1]
    )
    stages = [asdict(stage) for stage in RECIPES[recipe]]  # plain mappings do as well as the study's own objects
    for given_stages in (stages, RECIPES[recipe]):
        got = predict.predict_stages(
            given_stages, MASSES, CENTRES, sds, plateau, TARGET, 0.6, beta, 2.0, 4, 0.05, p_target=P_TARGET
        )
        assert len(got) == len(stages) + 1
        # 1e-4: EM's stopping rule, in nats (rehearsal has five components to fit into four)
        np.testing.assert_allclose([s.target_mass for s in got], behaviours[:, 3], atol=1e-4)
        np.testing.assert_allclose([s.reward for s in got], behaviours[:, 3], atol=1e-4)


def test_sft_and_its_optimum_are_exact() -> None:
    target = disc_weights(GRID, TARGET, 0.4743)
    for beta in (0.1, 0.2, 0.5):
        sft, aligned = on_p_star("align-only", beta)
        exact = tilt_on_grid(mixture_log_density(GRID, *P_STAR), hill(GRID.points), beta, GRID, target)
        assert sft.target_mass == pytest.approx(0.02 * (1 - np.exp(-4.5)), abs=2e-4)  # and a little of the neighbours
        spread = 0.25**2 + 0.025  # E_k exp(-d^2 / 2w^2) = w^2 / (w^2 + s^2) exp(-|mean_k - target|^2 / 2(w^2 + s^2))
        near = np.exp(-((P_STAR_MODES - 1) ** 2).sum(1) / (2 * spread))
        assert sft.reward == pytest.approx(float(P_STAR[0] @ near) * 0.25**2 / spread, abs=1e-9)
        assert aligned.target_mass == pytest.approx(exact.target_mass, abs=5e-3)
        assert aligned.reward == pytest.approx(exact.reward, abs=5e-3)


def test_order_matters_for_a_rare_target_and_not_for_a_tiny_beta() -> None:
    for beta in (0.1, 0.15):
        assert on_p_star("align-distil", beta)[-1].target_mass > 0.9
        assert on_p_star("distil-align", beta)[-1].target_mass < 0.05
    assert on_p_star("distil-align", 0.01)[-1].target_mass > 0.9


def test_a_broad_component_that_tilts_into_another_shape() -> None:
    # a student of eight equal modes: the ridge at x = 1 tilts into a spike with a tail, which moments alone would smear
    mixture = Mixture(
        np.array([0.45, 0.16, 0.21, 0.18]),
        np.array([[-1.0, 0.4], [1.0, 0.0], [-0.2, -1.0], [0.0, 1.0]]),
        np.array([[0.16, 0.59], [0.14, 0.65], [0.66, 0.14], [0.14, 0.14]]),
    )
    target = disc_weights(GRID, TARGET, 0.4743)
    for beta in (0.1, 0.15, 0.2):
        exact = tilt_on_grid(mixture_log_density(GRID, *mixture), hill(GRID.points), beta, GRID, target)
        _, got = predict.predict_stages([ALIGN], *mixture, hill, TARGET, 0.4743, beta, 3.0, 4)
        smeared = predict.tilt_mixture(mixture, hill(GRID.points), beta, GRID)
        moments = np.exp(mixture_log_density(GRID, *smeared)) * GRID.cell
        assert abs(got.reward - exact.reward) < 0.5 * abs(float((moments * hill(GRID.points)).sum()) - exact.reward)


def test_an_anchored_student_is_held_to_its_size() -> None:
    # one component: the Gaussian with the moments of pi* of sft
    density = mixture_log_density(GRID, *P_STAR)
    exact = tilt_on_grid(density, hill(GRID.points), 0.2, GRID, np.ones(GRID.shape))
    mass = np.exp(exact.log_density) * GRID.cell
    mean = np.array([(mass * GRID.points[..., i]).sum() for i in (0, 1)])
    spread = np.array([(mass * GRID.points[..., i] ** 2).sum() for i in (0, 1)]) - mean**2 + 0.25**2
    expected = float(np.prod(0.25 / spread**0.5 * np.exp(-((mean - 1) ** 2) / (2 * spread))))
    got = on_p_star("distil-align-anchored", 0.2, components=1)[-1].reward
    assert got == pytest.approx(expected, abs=1e-3)  # a little of so broad a Gaussian lies outside the grid
    assert abs(got - exact.reward) > 0.1


def test_mitigations() -> None:
    plain, anchored, rehearsed = (
        on_p_star(r, 0.1)[-1].target_mass for r in ("distil-align", "distil-align-anchored", "distil-align-rehearsed")
    )
    assert plain < 0.05
    assert anchored == pytest.approx(on_p_star("align-only", 0.1)[-1].target_mass, abs=0.02)  # pi* of sft fits in four
    assert rehearsed > 0.9
    again = on_p_star("align-distil-align", 0.15)
    assert again[3].target_mass > again[2].target_mass - 1e-6


def test_a_large_student_loses_only_what_sharpening_takes() -> None:
    after = on_p_star("distil-only", None, components=8, selectivity=1.0)
    assert after[1] == pytest.approx(after[0], rel=1e-12)
    sharp = P_STAR[0] ** 3 / (P_STAR[0] ** 3).sum()
    density = np.exp(mixture_log_density(FINE, sharp, *P_STAR[1:])) * FINE.cell
    sharpened = on_p_star("distil-only", None, components=8, selectivity=3.0)[1]
    assert sharpened.reward == pytest.approx(float((density * hill(FINE.points)).sum()), abs=1e-9)
    inside = float((density * disc_weights(FINE, TARGET, 0.4743)).sum())
    assert sharpened.target_mass == pytest.approx(inside, abs=5e-6)


@pytest.mark.parametrize("recipe", ["align-distil", "distil-align", "distil-align-anchored"])
def test_default_grid_agrees_with_a_finer_one(recipe: str) -> None:
    for beta in (0.05, 0.2):
        np.testing.assert_allclose(on_p_star(recipe, beta), on_p_star(recipe, beta, grid=FINE), atol=2e-3)


def test_same_bytes_every_time() -> None:
    assert on_p_star("align-distil", 0.2) == on_p_star("align-distil", 0.2)


@pytest.mark.parametrize(
    ("stages", "beta", "match"),
    [
        ([{"kind": "quantise"}], 0.1, "align or distil"),
        ([{"kind": "align", "reference": "base"}], 0.1, "start or sft"),
        ([{}], 0.1, "align or distil"),
        ([ALIGN], None, "needs a beta"),
        ([Stage("distil", rehearsed=True)], 0.1, "needs p_target"),
    ],
)
def test_bad_stages_are_refused(stages: list[Any], beta: float | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        predict.predict_categorical(stages, MASSES, [0, 0, 0, 1], beta, 3.0)
    with pytest.raises(InputError, match=match):
        predict.predict_stages(stages, *P_STAR, hill, TARGET, 0.4743, beta, 3.0, 4)
