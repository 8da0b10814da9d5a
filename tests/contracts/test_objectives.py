"""Every algorithm of the registry, against its own closed form on two behaviours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from alignfirst.theory import objectives as ob

MASS, GAP, BETA, SCALE = 0.1, 1.0, 0.5, 1.0  # of the target behaviour, whose reward is GAP; the other has reward 0
GROUP = 8
ON_POLICY = [a for a in ob.ALGORITHMS.values() if not a.on_pairs and a.uses_beta]
PAIRS = [a for a in ob.ALGORITHMS.values() if a.on_pairs]
CLOSED = {ob.dpo: ob.dpo_optimal_margin, ob.ipo: ob.ipo_optimal_margin}
PREFERENCE = [a for a in PAIRS if a.coefficients in CLOSED]
FLIPS = (0.0, 0.2, 0.4)


def score(theta, hit):
    """d log pi / d theta of a two-behaviour policy with target probability sigmoid(theta)."""
    return hit - expit(theta)


def sample_gradient(algorithm, theta, rng, updates=400, n=256):
    """Gradients of many independent updates, [updates]: samples of the policy, coefficients, score."""
    hit = (rng.random((updates, n)) < expit(theta)).astype(float)
    logp = np.where(hit == 1, np.log(expit(theta)), np.log(expit(-theta)))
    logp_ref = np.where(hit == 1, np.log(MASS), np.log1p(-MASS))
    reward = GAP * hit
    shaped = ob.shaped_reward(reward, logp, logp_ref, BETA if algorithm.uses_beta else 0.0)
    c = algorithm.coefficients(shaped, np.zeros_like(shaped), GROUP)
    return (c * score(theta, hit)).sum(-1)


def optimum():
    """logit of pi*(T): the odds of the reference times exp(D / beta)."""
    return logit(MASS) + GAP / BETA


@pytest.mark.parametrize("algorithm", ON_POLICY, ids=lambda a: a.name)
def test_on_policy_gradient_vanishes_only_at_the_tilt(algorithm):
    rng = np.random.default_rng(1)
    # The shaped reward is constant there; standardising divides its rounding, 1e-16, by 1e-8.
    assert np.abs(sample_gradient(algorithm, optimum(), rng)).max() < 1e-7
    for side in (-0.5, 0.5):
        g = sample_gradient(algorithm, optimum() + side, rng)
        assert -np.sign(side) * g.mean() > 5 * g.std(ddof=1) / np.sqrt(g.size)


@pytest.mark.parametrize("algorithm", ON_POLICY, ids=lambda a: a.name)
def test_on_policy_training_reaches_the_tilt(algorithm):
    rng = np.random.default_rng(2)
    theta = logit(MASS)
    assert optimum() - theta == GAP / BETA  # so far to go
    for step in range(400):
        theta += 30 / (10 + step) * sample_gradient(algorithm, theta, rng, updates=1)[0]
    # The last step is 0.07 of a gradient whose noise vanishes with the distance: what is left shrinks with every step.
    assert theta == pytest.approx(optimum(), abs=0.05)


def ordered_pairs(mass, flip):
    """All labelled pairs of one target and one other: (sign of the winner being the target, probability)."""
    p = ob.preference_probability(np.array(GAP), np.array(0.0), SCALE, flip)
    return np.array([1.0, -1.0]), np.array([p, 1 - p]) * 2 * mass * (1 - mass)


def pair_gradient(algorithm, m, flip):
    """Exact expected gradient of m = theta - theta_ref over labelled pairs; pairs of equals cancel."""
    sign, weight = ordered_pairs(MASS, flip)
    b = SCALE * BETA
    c_w, c_l = algorithm.coefficients((sign * m)[:, None], b)  # two "batches" of one pair
    return float((weight * (c_w - c_l)[:, 0] * sign / 2).sum())


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("algorithm", PREFERENCE, ids=lambda a: a.name)
def test_preference_optimum_is_the_closed_form(algorithm, flip):
    m = float(CLOSED[algorithm.coefficients](np.array(GAP), SCALE * BETA, SCALE, flip))
    assert pair_gradient(algorithm, m, flip) == pytest.approx(0, abs=1e-14)
    assert pair_gradient(algorithm, m - 0.1, flip) > 0 > pair_gradient(algorithm, m + 0.1, flip)


def test_dpo_without_noise_has_the_optimum_of_rl():
    assert float(ob.dpo_optimal_margin(np.array(GAP), SCALE * BETA, SCALE)) == pytest.approx(GAP / BETA)
    assert logit(MASS) + GAP / BETA == pytest.approx(optimum())


def test_hard_labels_have_no_finite_optimum():
    dpo = ob.ALGORITHMS["dpo-offline"]
    margins = np.array([[1.0], [10.0], [60.0]])
    c_w, _ = dpo.coefficients(margins, 0.5)
    assert (c_w > 0).all()  # the winner is pushed up for ever


def test_best_of_n_tends_to_the_best_behaviour():
    rng = np.random.default_rng(3)
    best = ob.ALGORITHMS["best-of-n"]
    for theta in (-2.0, 0.0, 1.0):
        g = sample_gradient(best, theta, rng)
        # E = P(a group holds a target) - p, over the group size
        p = expit(theta)
        expected = ((1 - (1 - p) ** GROUP) - p) / GROUP
        assert g.mean() == pytest.approx(expected, abs=5 * g.std(ddof=1) / np.sqrt(g.size))
        assert expected > 0


def test_sft_preferred_tends_to_the_winners():
    """Fixed point: pi(T) = share of winners that are the target."""
    p_win = float(ob.preference_probability(np.array(GAP), np.array(0.0), SCALE))
    winners = MASS**2 + 2 * MASS * (1 - MASS) * p_win
    answers = ob.Answers(np.zeros(4), np.ones(4))
    c_w, c_l = ob.sft_preferred(answers, answers, 1.0)
    assert (c_w == 0.25).all() and (c_l == 0).all()
    gradient = winners * score(logit(winners), 1.0) + (1 - winners) * score(logit(winners), 0.0)
    assert gradient == pytest.approx(0, abs=1e-15)


def test_coefficients_by_hand():
    r = np.array([1.0, 2.0, 3.0, 6.0])
    zero = np.zeros(4)
    np.testing.assert_allclose(ob.reinforce(r, zero, 2), (r - 3) / 4)
    np.testing.assert_allclose(ob.rloo(r, zero, 2), np.array([-1, 1, -3, 3]) / 4)
    sd = np.array([2**0.5 / 2, 4.5**0.5])  # ddof 1
    expected = np.repeat(1 / (sd + 1e-4), 2) * np.array([-0.5, 0.5, -1.5, 1.5]) / 4
    np.testing.assert_allclose(ob.grpo(r, zero, 2), expected)
    np.testing.assert_allclose(ob.ppo(r, zero, 2), (r - 3) / np.sqrt(3.5) / 4)
    np.testing.assert_allclose(ob.best_of_n(r, zero, 2), [0, 0.25, 0, 0.25])
    np.testing.assert_allclose(ob.dpo(np.array([0.0, 2.0]), 0.5)[0], [0.5 * 0.5 / 2, 0.5 * expit(-1) / 2])
    np.testing.assert_allclose(ob.ipo(np.array([0.0, 2.0]), 0.5)[0], [2 * 1 / 2, 2 * (1 - 2) / 2])


@pytest.mark.parametrize("advantage", (-1.0, 1.0))
@pytest.mark.parametrize("ratio", (0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0))
def test_clipping_is_the_gradient_of_the_clipped_surrogate(advantage, ratio):
    def surrogate(log_ratio):
        x = np.exp(log_ratio)
        return np.minimum(x * advantage, np.clip(x, 0.8, 1.2) * advantage)

    h, at = 1e-6, np.log(ratio)
    numeric = (surrogate(at + h) - surrogate(at - h)) / (2 * h)
    assert ob.clipped(np.array([advantage]), np.array([at]))[0] == pytest.approx(numeric, abs=1e-8)


def seen(algorithm, logp_w, logp_l):
    """What a function of pairs gets: answers as long as their log-probabilities make them, references at 0."""
    zero = np.zeros_like(logp_w)
    return algorithm.seen(*(ob.Answers(x, np.ceil(np.abs(x)) + 1) for x in (logp_w, logp_l)), zero, zero)


@pytest.mark.parametrize("algorithm", PAIRS, ids=lambda a: a.name)
def test_pair_coefficients_are_gradients_of_their_objectives(algorithm):
    """By finite differences in log pi of every winner and every loser."""
    rng = np.random.default_rng(4)
    w, lo, b, h = -3 * rng.random(6), -3 * rng.random(6), 0.3, 1e-6

    def objective(up_w, up_l):
        return algorithm.objective(*seen(algorithm, w + up_w, lo + up_l), b)

    zero = np.zeros(6)
    of_w = [(objective(h * e, zero) - objective(-h * e, zero)) / (2 * h) for e in np.eye(6)]
    of_l = [(objective(zero, h * e) - objective(zero, -h * e)) / (2 * h) for e in np.eye(6)]
    assert max(map(abs, of_w)) > 1e-3
    np.testing.assert_allclose(algorithm.coefficients(*seen(algorithm, w, lo), b), [of_w, of_l], atol=1e-8)


@pytest.mark.parametrize("algorithm", PAIRS, ids=lambda a: a.name)
def test_every_pair_stands_alone(algorithm):
    """As a batch of its own a pair has the same coefficients, but for 1/N: language models share pairs out."""
    w, lo = -3 * np.random.default_rng(6).random((2, 6))
    whole = np.array(algorithm.coefficients(*seen(algorithm, w, lo), 0.3))
    alone = np.array(algorithm.coefficients(*seen(algorithm, w[:, None], lo[:, None]), 0.3))[..., 0]
    np.testing.assert_allclose(alone / 6, whole, rtol=1e-12)


@pytest.mark.parametrize("algorithm", ob.ALGORITHMS.values(), ids=lambda a: a.name)
def test_runs_do_not_mix_and_float32_stays(algorithm):
    rng = np.random.default_rng(5)
    values, others = rng.normal(size=(2, 3, 16)).astype(np.float32)
    b = np.full((3, 1), 0.3, np.float32)
    if algorithm.on_pairs:
        whole = np.stack(algorithm.coefficients(*seen(algorithm, values, others), b))
        single = np.stack(algorithm.coefficients(*seen(algorithm, values[1:2], others[1:2]), b[1:2]))[:, 0]
        row = whole[:, 1]
    else:
        whole = algorithm.coefficients(values, others, 4)
        row, single = whole[1], algorithm.coefficients(values[1:2], others[1:2], 4)[0]
    assert whole.dtype == np.float32
    assert row.tobytes() == single.tobytes()
