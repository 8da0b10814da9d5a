"""Several prompts, as every audit of a language model has: intervals over prompts, each prompt's tilt and weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit, softmax
from scipy.stats import beta as beta_law

from alignfirst.auditing.constants import MIN_ESS
from alignfirst.auditing.gated_prediction import Plan, examine, predict
from alignfirst.auditing.pooled_draws import Draws, Sample, gather, reference_mass
from alignfirst.auditing.sample_tilt import tilt
from alignfirst.auditing.verdict import judge

SIGMAS = 5.0
LEVELS = (2, 6)  # the target's mass differs from prompt to prompt by this Beta law
ALLOWED = ((0.945, -1), (0.97, 1))  # least and most coverage, before sampling error


def many_prompts(random: np.random.Generator, prompts: int, each: int) -> Draws:
    """Plain draws of prompts whose own mass of T varies; a hit earns 1, a miss 0."""
    prompt = np.repeat(np.arange(prompts), each)
    hit = random.random(len(prompt)) < random.beta(*LEVELS, prompts)[prompt]
    return gather(Sample.of(hit, hit, prompt=prompt))


@pytest.mark.parametrize("each", [40, 160])
def test_intervals_over_prompts_hold_as_often_as_they_say(each: int) -> None:
    """m0 and m* of 30 prompts. What varies between prompts stays unknown however often each of them is drawn from.

    Nominal are 95 %. At 40 draws a prompt the bias of m*, of order 1 / draws, is a fifth of a standard error and takes
    half a point; Clopper-Pearson on whole effective draws is cautious and adds up to two.
    """
    random, runs, beta = np.random.default_rng(each), 1_500, 1.0
    law = beta_law(*LEVELS)
    truth = {
        "m0": float(law.mean()),
        "m*": float(quad(lambda level: expit(logit(level) + 1 / beta) * law.pdf(level), 0, 1)[0]),
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(runs):
        draws = many_prompts(random, 30, each)
        m0 = reference_mass(draws)
        for name, found in (("m0", m0), ("m*", tilt(draws, beta, m0).mass)):
            assert found.low is not None and found.high is not None
            covered[name] += found.low <= truth[name] <= found.high
    least, most = (level + sign * SIGMAS * math.sqrt(level * (1 - level) / runs) for level, sign in ALLOWED)
    for name, count in covered.items():
        assert least <= count / runs <= most, name


def mixed_prompts(bad: int, prompts: int = 7, each: int = 30) -> Draws:
    """`bad` prompts in which one draw earns far more than the rest, so that it takes all the weight of the tilt."""
    random = np.random.default_rng(bad)
    reward = 0.05 * random.normal(size=(prompts, each))
    reward[:, 0] += 0.5
    reward[:bad, 0] += 5.0
    hit = np.zeros((prompts, each), bool)
    hit[:, : each // 2] = True
    return gather(Sample.of(reward.ravel(), hit.ravel(), prompt=np.repeat(np.arange(prompts), each)))


@pytest.mark.parametrize("bad", [0, 1, 3, 4, 7])
def test_the_effective_sample_size_is_that_of_the_median_prompt(bad: int) -> None:
    draws, beta = mixed_prompts(bad), 0.5
    by_prompt = [1 / (softmax(draws.reward[draws.prompt == k] / beta) ** 2).sum() for k in range(draws.prompts)]
    assert sum(ess < 1.1 for ess in by_prompt) == bad
    found = tilt(draws, beta, reference_mass(draws)).ess
    assert found == pytest.approx(sorted(by_prompt)[3], rel=1e-9)
    assert (found < MIN_ESS) == (bad > 3)


def test_a_tilt_that_collapsed_in_most_prompts_is_no_verdict() -> None:
    """Seven prompts of 30 draws; in four of them one draw carries the tilt. Over all prompts 85 would seem to."""
    for bad, collapsed in ((3, False), (4, True)):
        evidence = examine(mixed_prompts(bad))
        verdict = judge(evidence, predict(evidence, Plan("reinforce", 0.5, 10**6)))
        assert ("1.0 effective draws for the median prompt" in verdict.because) == collapsed
        if collapsed:
            assert verdict.call == "insufficient data" and verdict.more_draws is not None


def test_prompts_are_pooled_by_their_own_numbers_of_draws() -> None:
    """Balance heuristic q / (n_q q + n_p p) with the n_q and n_p of the draw's own prompt."""
    counts = {0: (10, 30), 1: (40, 5), 2: (7, 0)}
    q_mass, p_mass = {0: 0.1, 1: 0.4, 2: 0.3}, {0: 0.6, 1: 0.7, 2: 0.5}
    random = np.random.default_rng(0)

    def sample(side: int) -> Sample:
        prompt = np.repeat(list(counts), [n[side] for n in counts.values()])
        hit = random.random(len(prompt)) < 0.5
        masses = [np.array([law[k] for k in prompt]) for law in (q_mass, p_mass)]
        q, p = (np.log(np.where(hit, m, 1 - m)) for m in masses)
        return Sample.of(hit, hit, logp_reference=q, logp_teacher=p, prompt=prompt)

    draws = gather(sample(0), sample(1))
    assert draws.in_target is not None
    totals, masses = [], []
    for k, (n_q, n_p) in counts.items():
        own = draws.prompt == k
        hit = draws.in_target[own]
        q, p = (np.where(hit, law[k], 1 - law[k]) for law in (q_mass, p_mass))
        raw = q / (n_q * q + n_p * p)
        assert draws.weight[own] == pytest.approx(raw / raw.sum(), rel=1e-12)
        totals.append(raw.sum())
        masses.append((raw * hit).sum() / raw.sum())
    assert draws.raw_total.value == pytest.approx(np.mean(totals), rel=1e-12)
    assert reference_mass(draws).value == pytest.approx(np.mean(masses), rel=1e-12)
