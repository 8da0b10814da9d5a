"""Draws of the reference pooled with those of a teacher, by hand: what counts whose draws, and with what weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta as beta_law
from scipy.stats import norm, t

from alignfirst.auditing.gated_prediction import examine
from alignfirst.auditing.pooled_draws import Draws, Sample, gather, reference_mass

# One row a response: reward, hit, probability under the reference and under the teacher
REFERENCE = [
    (0.1, 0, 0.4, 0.1),
    (0.3, 0, 0.2, 0.1),
    (0.2, 0, 0.3, 0.2),
    (0.6, 1, 0.05, 0.2),
    (0.1, 0, 0.4, 0.1),
    (0.4, 0, 0.1, 0.2),
    (0.2, 0, 0.3, 0.2),
]
TEACHER = [(1.0, 1, 0.01, 0.3), (0.8, 1, 0.02, 0.1), (0.6, 1, 0.05, 0.2), (-0.7, 0, 0.02, 0.1)]


def pooled(preferred: list[float] | None = None) -> Draws:
    def sample(rows: list[tuple[float, int, float, float]]) -> Sample:
        reward, hit, q, p = np.array(rows).T
        return Sample.of(reward, hit, logp_reference=np.log(q), logp_teacher=np.log(p))

    return gather(sample(REFERENCE), sample(TEACHER), preferred)


def weights() -> np.ndarray:
    raw = np.array([q / (len(REFERENCE) * q + len(TEACHER) * p) for _, _, q, p in REFERENCE + TEACHER])
    return raw / raw.sum()


def mean_of_hits() -> float:
    """E_q[R | T], by the weights: the teacher's better hits are rare under the reference."""
    reward, hit = np.array([row[:2] for row in REFERENCE + TEACHER]).T
    return float((weights() * hit * reward).sum() / (weights() * hit).sum())


def test_the_reward_outside_the_target_is_that_of_the_references_own_misses() -> None:
    found = examine(pooled())
    misses = np.array([0.1, 0.3, 0.2, 0.1, 0.4, 0.2])  # not the teacher's -0.7
    half = t.ppf(0.975, 5) * misses.std(ddof=1) / math.sqrt(6)
    assert found.outside.value == pytest.approx(misses.mean())
    assert (found.outside.low, found.outside.high) == pytest.approx((misses.mean() - half, misses.mean() + half))
    assert found.outside_sd == pytest.approx(misses.std())


@pytest.mark.parametrize("preferred", [None, [0.9, 1.1, 1.3]])
def test_the_quality_of_hits_weighs_them_as_the_reference_draws_them(preferred: list[float] | None) -> None:
    """Preferred examples, or the teacher's hits where there are none, are not draws of the reference: a plain mean."""
    found = examine(pooled(preferred))
    best = np.mean(preferred or [1.0, 0.8, 0.6])
    u = np.mean([0.1, 0.3, 0.2, 0.1, 0.4, 0.2])
    assert found.preferred.value == pytest.approx(best)
    assert found.gap == pytest.approx(best - u)
    assert found.quality.value == pytest.approx((mean_of_hits() - u) / (best - u))


def test_what_a_hit_is_worth_is_their_weighted_mean_where_nothing_is_preferred() -> None:
    """All hits are the reference's own, and the teacher, which misses, makes some of them count more than others."""
    q, p = np.array([0.4, 0.1, 0.02, 0.4]), np.array([0.1, 0.1, 0.3, 0.2])
    reward, hit = np.array([0.0, 1.0, 0.5, 0.0]), np.array([False, True, True, False])
    own = Sample.of(reward, hit, logp_reference=np.log(q), logp_teacher=np.log(p))
    other = Sample.of([0.2], [False], logp_reference=[math.log(0.1)], logp_teacher=[math.log(0.2)])
    found = examine(gather(own, other))
    a, b = 0.1 / (4 * 0.1 + 0.1), 0.02 / (4 * 0.02 + 0.3)
    assert found.preferred.value is None
    assert found.gap == pytest.approx((a * 1.0 + b * 0.5) / (a + b))


def few_hits() -> Draws:
    """Hits are x > 2 of q = N(0, 1): 100 quantiles of q, and 8 of p = N(2.5, 1) that find most of the 8 hits."""

    def sample(n: int, shift: float) -> Sample:
        x = shift + norm.ppf((np.arange(n) + 0.5) / n)
        return Sample.of(x, x > 2, logp_reference=norm.logpdf(x), logp_teacher=norm.logpdf(x, 2.5))

    return gather(sample(100, 0.0), sample(8, 2.5))


def test_the_pooled_interval_of_the_mass_is_korn_and_graubards_on_the_effective_hits() -> None:
    """Variance within both strata; one degree of freedom less than there are effective hits, here 4.3."""
    draws = few_hits()
    assert draws.in_target is not None
    hits = draws.weight[draws.in_target]
    m0, effective = hits.sum(), hits.sum() ** 2 / (hits**2).sum()
    assert 5 < effective < 5.5
    influence = draws.weight * (draws.in_target - m0)
    variance = sum(len(x) * x.var(ddof=1) for x in (influence[draws.teacher], influence[~draws.teacher]))
    n = m0 * (1 - m0) / variance * (norm.ppf(0.975) / t.ppf(0.975, effective - 1)) ** 2
    low = beta_law.ppf(0.025, n * m0, n * (1 - m0) + 1)
    high = beta_law.ppf(0.975, n * m0 + 1, n * (1 - m0))
    found = reference_mass(draws)
    assert (found.value, found.low, found.high) == pytest.approx((m0, low, high), rel=1e-9)
