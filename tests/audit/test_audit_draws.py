"""The weighted sample and the tilt, against closed forms: a Gaussian, and two behaviours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import norm

from alignfirst.auditing.pooled_draws import Draws, Sample, gather, reference_mass, reference_reward
from alignfirst.auditing.sample_tilt import tilt
from alignfirst.auditing.share_intervals import clopper_pearson
from alignfirst.errors import InputError
from alignfirst.theory.tilt import categorical_tilt

SIGMAS = 5.0


def gaussian(n: int, seed: int, shift: float | None = None, cut: float = 1.5) -> Draws:
    """q = N(0, 1), R(x) = x, T = {x > cut}; with `shift`, pooled with as many draws of p = N(shift, 1)."""
    random = np.random.default_rng(seed)

    def sample(x: np.ndarray) -> Sample:
        p = None if shift is None else norm.logpdf(x, shift)
        return Sample.of(x, x > cut, logp_reference=norm.logpdf(x), logp_teacher=p)

    q = sample(random.normal(size=n))
    return gather(q, None if shift is None else sample(random.normal(shift, 1, n)))


def two_behaviours(mass: float, n: int, seed: int, p_mass: float | None = None) -> Draws:
    """T has mass `mass` and reward 1, the rest reward 0; the teacher has `p_mass` on T."""
    random = np.random.default_rng(seed)

    def sample(own: float) -> Sample:
        hit = random.random(n) < own
        p = None if p_mass is None else np.log(np.where(hit, p_mass, 1 - p_mass))
        return Sample.of(hit, hit, logp_reference=np.log(np.where(hit, mass, 1 - mass)), logp_teacher=p)

    return gather(sample(mass), None if p_mass is None else sample(p_mass))


@pytest.mark.parametrize("shift", [None, 1.0, 2.0])
def test_the_tilt_of_a_gaussian_is_a_shifted_gaussian(shift: float | None) -> None:
    """pi* of N(0, 1) with R = x is N(1/beta, 1): mean 1/beta, mass above c Phi(1/beta - c)."""
    beta = 1.0
    draws = gaussian(40_000, 0, shift)
    found = tilt(draws, beta, reference_mass(draws))
    reward, mass = found.reward, found.mass
    assert reward.low is not None and reward.high is not None and mass.low is not None and mass.high is not None
    spread = (reward.high - reward.low) / 3.92
    assert abs(reward.value - 1 / beta) < SIGMAS * spread  # type: ignore[operator]
    assert mass.low < norm.cdf(1 / beta - 1.5) < mass.high
    assert found.ess > 1_000


@pytest.mark.parametrize("beta", [0.05, 0.2, 1.0])
def test_two_behaviours_tilt_as_the_categorical_formula_says(beta: float) -> None:
    draws = two_behaviours(0.02, 20_000, 1, 0.3)
    m0 = reference_mass(draws)
    assert m0.value is not None
    expected = categorical_tilt([m0.value, 1 - m0.value], [1.0, 0.0], beta)[0]
    found = tilt(draws, beta, m0)
    assert found.mass.value == pytest.approx(expected, rel=1e-9)
    assert found.reward.value == pytest.approx(expected, rel=1e-9)
    # Rewards vary on neither side, so the interval is that of m0, moved by 1/beta on the scale of log odds
    for end in ("low", "high"):
        before, after = getattr(m0, end), getattr(found.mass, end)
        assert logit(after) == pytest.approx(logit(before) + 1 / beta, rel=1e-6)


def test_the_balance_heuristic_is_the_formula_with_q_over_the_mixture() -> None:
    draws = two_behaviours(0.1, 50, 2, 0.5)
    q, p = np.where(draws.in_target, 0.1, 0.9), 0.5
    raw = q / (q / 2 + p / 2) / (2 * 50)
    assert draws.weight == pytest.approx(raw / raw.sum(), rel=1e-12)
    assert draws.raw_total.value == pytest.approx(raw.sum(), rel=1e-12)


def test_pooling_estimates_what_the_reference_never_drew() -> None:
    """Mass 1e-5: 2,000 draws of q see nothing, 2,000 of a teacher with half its mass there see it well."""
    estimates, covered, runs = [], 0, 400
    for seed in range(runs):
        m0 = reference_mass(two_behaviours(1e-5, 2_000, seed, 0.5))
        assert m0.value is not None and m0.low is not None and m0.high is not None
        assert m0.high < 1.2e-5  # 2,000 plain draws without a hit would leave 1.8e-3
        covered += m0.low < 1e-5 < m0.high
        estimates.append(m0.value)
    assert abs(np.mean(estimates) - 1e-5) < SIGMAS * np.std(estimates) / math.sqrt(runs)
    assert covered / runs >= 0.95 - SIGMAS * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("mass", [0.3, 0.02, 0.002])
@pytest.mark.parametrize("shift", [None, 1.0])
def test_intervals_of_the_mass_hold_as_often_as_they_say(mass: float, shift: float | None) -> None:
    """95 % nominal over 600 draws of 500; a weighted interval may fall short by two points."""
    runs, cut = 600, float(norm.isf(mass))
    covered = 0
    for seed in range(runs):
        found = reference_mass(gaussian(500, 10_000 + seed, shift, cut))
        assert found.low is not None and found.high is not None
        covered += found.low <= mass <= found.high
    level = 0.95 if shift is None else 0.93
    assert covered / runs >= level - SIGMAS * math.sqrt(level * (1 - level) / runs)


def test_intervals_of_the_optimum_hold_as_often_as_they_say() -> None:
    """Reward and mass at beta 1, where the tilt is mild; 93 % is asked of a delta method."""
    runs, beta, cut = 600, 1.0, 1.0
    truth = {"reward": 1 / beta, "mass": float(norm.cdf(1 / beta - cut))}
    covered = dict.fromkeys(truth, 0)
    for seed in range(runs):
        draws = gaussian(2_000, 20_000 + seed, 0.5, cut)
        found = tilt(draws, beta, reference_mass(draws))
        for name, value in truth.items():
            number = getattr(found, name)
            covered[name] += number.low <= value <= number.high
    assert min(covered.values()) / runs >= 0.93 - SIGMAS * math.sqrt(0.93 * 0.07 / runs)


def test_a_constant_added_to_the_reward_moves_only_the_reward() -> None:
    draws = gaussian(500, 3, 1.0)
    moved = replace(draws, reward=draws.reward + 100.0)
    m0 = reference_mass(draws)
    a, b = tilt(draws, 0.3, m0), tilt(moved, 0.3, m0)
    assert b.reward.value == pytest.approx(a.reward.value + 100.0)  # type: ignore[operator]
    assert (b.mass.value, b.mass.low, b.ess) == pytest.approx((a.mass.value, a.mass.low, a.ess))


def test_reward_and_beta_have_one_unit() -> None:
    draws = gaussian(500, 4)
    scaled = replace(draws, reward=draws.reward * 50.0)
    m0 = reference_mass(draws)
    a, b = tilt(draws, 0.3, m0), tilt(scaled, 15.0, m0)
    assert b.reward.value == pytest.approx(50.0 * a.reward.value)  # type: ignore[operator]
    assert (b.mass.value, b.ess) == pytest.approx((a.mass.value, a.ess))


def test_a_tiny_beta_is_exact_to_the_last_digit_and_says_how_little_it_rests_on() -> None:
    draws = two_behaviours(0.02, 500, 5)
    found = tilt(draws, 1e-4, reference_mass(draws))
    assert found.mass.value == 1.0 and found.reward.value == pytest.approx(1.0)
    top = tilt(gaussian(500, 6), 1e-3, reference_mass(gaussian(500, 6)))
    assert top.ess == pytest.approx(1.0)


def test_prompts_are_tilted_apart() -> None:
    """Alignment cannot trade one prompt for another, however much better its rewards are."""
    reward = np.array([0.0, 1.0] * 50 + [10.0, 11.0] * 50)
    hit = reward % 10 == 1
    prompt = np.repeat(np.arange(10), 20)
    draws = gather(Sample.of(reward, hit, prompt=prompt))
    found = tilt(draws, 0.5, reference_mass(draws))
    odds = math.exp(2)
    assert found.mass.value == pytest.approx(odds / (1 + odds))
    assert found.reward.value == pytest.approx(5 + odds / (1 + odds))


def test_the_order_of_rows_means_nothing() -> None:
    random = np.random.default_rng(7)
    reward, prompt = random.normal(size=300), random.integers(0, 9, 300)
    shuffled = random.permutation(300)
    a = gather(Sample.of(reward, reward > 1, prompt=prompt))
    b = gather(Sample.of(reward[shuffled], reward[shuffled] > 1, prompt=prompt[shuffled]))
    assert reference_mass(a).value == pytest.approx(reference_mass(b).value)
    assert tilt(a, 0.2, reference_mass(a)).reward.value == pytest.approx(tilt(b, 0.2, reference_mass(b)).reward.value)


def test_no_hit_bounds_the_mass_by_the_draws_and_leaves_the_optimum_open() -> None:
    draws = gather(Sample.of(np.linspace(0, 0.5, 100), np.zeros(100, bool)))
    m0 = reference_mass(draws)
    assert (m0.value, m0.low, m0.high) == pytest.approx((0.0, *clopper_pearson(0, 100)))
    found = tilt(draws, 0.1, m0)
    assert (found.mass.value, found.mass.low, found.mass.high) == (0.0, 0.0, 1.0)
    known = gather(Sample.of(np.linspace(0, 0.5, 100), np.zeros(100, bool)), preferred=[0.6])
    bounded = tilt(known, 0.1, m0).mass.high
    assert bounded is not None and bounded < 1.0


def test_log_probabilities_of_another_distribution_give_themselves_away() -> None:
    """Teacher's log-probabilities that are one nat off (an end token forgotten): the weights no longer sum to one."""
    random = np.random.default_rng(8)
    x, y = random.normal(size=4_000), random.normal(1.5, 1, 4_000)

    def pooled(off: float) -> Draws:
        return gather(
            *(
                Sample.of(z, z > 1, logp_reference=norm.logpdf(z), logp_teacher=norm.logpdf(z, 1.5) + off)
                for z in (x, y)
            )
        )

    honest, wrong = pooled(0.0).raw_total, pooled(1.0).raw_total
    assert honest.low is not None and honest.high is not None and honest.low < 1 < honest.high
    assert wrong.high is not None and wrong.high < 0.95


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sample.of([]), "at least one reward"),
        (lambda: Sample.of([0.0, math.nan]), "nan at row 1"),
        (lambda: Sample.of([0.0], [True, False]), "one value per reward"),
        (lambda: Sample.of([0.0], logp_reference=[-math.inf]), "logp_reference must be a finite number"),
        (lambda: gather(Sample.of([0.0]), Sample.of([1.0])), "pooling needs log-probabilities"),
        (lambda: gather(Sample.of([0.0], [True]), Sample.of([1.0])), "in the target or none"),
        (lambda: tilt(gaussian(10, 0), 0.0, reference_mass(gaussian(10, 0))), "beta must be finite and > 0"),
    ],
)
def test_bad_arrays_are_refused_in_words(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]


def test_one_draw_has_no_spread() -> None:
    draws = gather(Sample.of([0.7], [True]))
    assert reference_reward(draws).why == "one draw has no spread"
