"""The exact KL-regularised optimum of a reference, estimated from its draws: pi* proportional to q exp(R / beta)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from alignfirst.auditing.constants import MIN_PROMPTS
from alignfirst.auditing.pooled_draws import Draws
from alignfirst.auditing.share_intervals import Bools, Floats, Number, Z, clustered_mean, share_interval
from alignfirst.theory.tilt import require_positive


@dataclass(frozen=True)
class Tilt:
    """The optimum at one beta. Intervals are those of sampling alone; that training gets there is another matter."""

    beta: float
    reward: Number  # R*
    mass: Number  # m*
    ess: float  # effective number of draws behind it; with several prompts the median over prompts


def tilt(draws: Draws, beta: float, mass: Number) -> Tilt:
    """R* and m* at beta, given m0 (`reference_mass`); prompts are tilted apart, for alignment cannot trade them.

    Raises InputError unless beta > 0.
    """
    require_positive("beta", beta)
    log_w = draws.log_weight + draws.reward / beta
    w = draws.normalised(log_w)
    ess = float(np.median(1.0 / draws.total(w * w)))
    rewards = draws.total(w * draws.reward)
    if draws.prompts > 1:
        reward = clustered_mean(rewards, np.arange(draws.prompts), "prompts")
        return Tilt(beta, reward, _mass_over_prompts(draws, w), ess)
    r = float(rewards[0])
    se = math.sqrt(draws.variance(w * (draws.reward - r)))
    reward = Number(r, r - Z * se, r + Z * se) if se > 0 else Number(r, why="every draw has the same reward")
    return Tilt(beta, reward, _mass(draws, log_w, mass, beta), ess)


def _mass_over_prompts(draws: Draws, w: Floats) -> Number:
    if draws.in_target is None:
        return Number(None, why="no target was named")
    per_prompt = draws.total(w * draws.in_target)
    m = min(float(per_prompt.mean()), 1.0)  # rounding
    if draws.prompts < MIN_PROMPTS:
        return Number(m, why=f"{draws.prompts} prompts are too few for an interval over prompts")
    variance = float(per_prompt.var(ddof=1)) / draws.prompts
    return Number(m, *share_interval(m, variance, draws.prompts - 1))


def _mass(draws: Draws, log_w: Floats, mass: Number, beta: float) -> Number:
    """m* for one prompt: the odds of m0 times a gain, log gain = log E[e^(R/beta) | T] - log E[e^(R/beta) | not T].

    The interval of m0 carries over as it is; the gain's own error, by the delta method over both strata, widens it. In
    logarithms throughout: at small beta one side may hold less mass than rounding leaves.
    """
    if draws.in_target is None or mass.value is None:
        return Number(None, why="no target was named")
    hit = draws.in_target
    if draws.hits in (0, len(hit)):
        return _mass_unseen(draws, mass, beta)
    tilted, log_odds = _within_sides(log_w, hit)
    plain, log_odds_0 = _within_sides(draws.log_weight, hit)
    m = float(expit(log_odds))
    if mass.low is None or mass.high is None:
        return Number(m, why=mass.why)
    widening = Z * math.sqrt(draws.variance(np.where(hit, 1.0, -1.0) * (tilted - plain)))
    with np.errstate(divide="ignore"):
        down, up = log_odds_0 - logit(mass.low), logit(mass.high) - log_odds_0
    low, high = log_odds - math.hypot(down, widening), log_odds + math.hypot(up, widening)
    return Number(m, float(expit(low)), float(expit(high)))


def _within_sides(log_w: Floats, hit: Bools) -> tuple[Floats, float]:
    """Weights that sum to one within T and outside it, and the log-odds of T."""
    w, totals = np.empty(len(log_w)), []
    for side in (hit, ~hit):
        top = log_w[side].max()
        w[side] = np.exp(log_w[side] - top)
        total = w[side].sum()
        w[side] /= total
        totals.append(float(top + math.log(total)))
    return w, totals[0] - totals[1]


def _mass_unseen(draws: Draws, mass: Number, beta: float) -> Number:
    """All draws on one side of T: what the other side's rewards would be nobody knows, so the interval stays open.

    Preferred examples tell what a hit may be worth at most: then no hit in n draws bounds m* from above.
    """
    assert mass.value is not None and draws.in_target is not None
    if mass.low is None or mass.high is None:
        return Number(mass.value, why=mass.why)
    if draws.hits:
        return Number(1.0, mass.low, 1.0)
    if draws.preferred is None:
        return Number(0.0, 0.0, 1.0)
    top = float(draws.preferred.max()) / beta
    scaled = draws.reward / beta - top
    log_rest = top + scaled.max() + math.log(float((draws.weight * np.exp(scaled - scaled.max())).sum()))
    return Number(0.0, 0.0, float(expit(logit(mass.high) + top - log_rest)))
