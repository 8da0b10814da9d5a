"""The three-way verdict on one plan: go, no-go or insufficient data, why, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit, logit

from alignfirst.auditing.constants import (
    GATES,
    HARDLY_EVER,
    MIN_ESS,
    MIN_EXPECTED_HITS,
    MIN_HITS,
    MOST_DRAWS_ADVISED,
    OFF_BALANCE,
    OFF_BALANCE_WIDTHS,
    SUCCESS,
)
from alignfirst.auditing.gated_prediction import Evidence, Prediction, acting_beta, predict
from alignfirst.auditing.pooled_draws import Draws
from alignfirst.auditing.share_intervals import Number, clopper_pearson

Call = Literal["go", "no-go", "insufficient data"]


@dataclass(frozen=True)
class Verdict:
    """`because` says why in one sentence, `todo` what would change it or settle it, best first."""

    call: Call
    because: str
    todo: tuple[str, ...]
    more_draws: int | None = None  # of the reference, that would probably settle it; None: draws cannot, or need not


def judge(evidence: Evidence, prediction: Prediction) -> Verdict:
    """Apply the rules in order; the first that holds decides."""
    for rule in (_refused, _without_reward_spread, _without_target, _collapsed, _no_go, _go):
        verdict = rule(evidence, prediction)
        if verdict is not None:
            return verdict
    return _undecided(evidence, prediction)


def without_reward() -> Verdict:
    """Preferences alone say what the reference knows, not what alignment will make of it."""
    because = "a verdict needs a reward: with preferences alone there is nothing to tilt"
    cure = "Give a reward for sampled responses (--reward module:function, or `reward` in the rows)."
    return Verdict("insufficient data", because, (cure,))


def of_given_pairs() -> Verdict:
    """A reward beside pairs that somebody else drew and labelled says nothing of where training on them ends."""
    because = (
        "the pairs are given: no model of the study drew them and nothing says that the reward labelled them, so the "
        "reward's optimum need not be theirs"
    )
    cure = "Audit an algorithm that draws answers and judges them by the reward, such as grpo or dpo-online."
    return Verdict("insufficient data", because, (cure,))


def _refused(evidence: Evidence, p: Prediction) -> Verdict | None:
    if p.refused is None:
        return None
    return Verdict("insufficient data", p.refused, (f"Audit one that is predicted: {', '.join(GATES)}.",))


def _without_reward_spread(evidence: Evidence, p: Prediction) -> Verdict | None:
    reward = evidence.draws.reward
    if len(reward) == 1:
        return Verdict("insufficient data", "one draw says nothing about a distribution", ("Draw more responses.",))
    if reward.max() - reward.min() > 1e-12 * max(1.0, float(np.abs(reward).max())):
        return None
    because = f"all {len(reward):,} draws have the same reward, so alignment has nothing to climb"
    return Verdict("insufficient data", because, ("Check the reward, or draw more responses.",))


def _without_target(evidence: Evidence, p: Prediction) -> Verdict | None:
    if evidence.mass.value is not None:
        return None
    cure = "Name a target (--target 'R >= x', or `in_target` in the rows)."
    return Verdict("insufficient data", "no target was named, so only the reward is predicted", (cure,))


def _collapsed(evidence: Evidence, p: Prediction) -> Verdict | None:
    """The tilt rests on a handful of draws. Rare hits alone do not count: few draws of T are what they are few of."""
    if p.ess is None or p.ess >= MIN_ESS or _hopeless(p):
        return None
    per_prompt = " for the median prompt" if evidence.draws.prompts > 1 else ""
    because = f"at beta {p.plan.beta:g} the prediction rests on {p.ess:.1f} effective draws{per_prompt}"
    more = max(1, math.ceil(evidence.draws.reference_draws * (MIN_ESS / p.ess - 1)))
    todo = [f"Draw about {more:,} more responses.", "Audit a larger beta, at which fewer draws take all the weight."]
    if not evidence.draws.pooled:
        todo.insert(0, "Give a teacher whose draws find the target (--teacher).")
    return Verdict("insufficient data", because, tuple(todo), more)


def _hopeless(p: Prediction) -> bool:
    return p.mass.high is not None and p.mass.high < SUCCESS


def _no_go(evidence: Evidence, p: Prediction) -> Verdict | None:
    if not _hopeless(p):
        return None
    assert p.mass.value is not None and p.mass.high is not None
    because = f"the target is predicted to stay at {percent(p.mass.value)} of outputs, at most {percent(p.mass.high)}"
    return Verdict("no-go", because, tuple(_ways_out(evidence, p)))


def _ways_out(evidence: Evidence, p: Prediction) -> list[str]:
    """Where does it break: in the reference itself, in the rollouts, or in the quality of hits?"""
    assert p.optimum is not None
    best, todo = p.optimum.mass.value or 0.0, []
    if best <= SUCCESS:
        todo.append("Take another reference, or align before distilling: this one's own optimum misses the target.")
        todo.append("A lower beta may do: see the beta window.")
    elif p.gate.value is not None and p.gate.value < HARDLY_EVER:
        todo.append("Take another reference, or align before distilling: this one hardly ever draws the target.")
        todo.append("More rollouts may do: see rollouts needed.")
    if p.tilted_at is not None and p.tilted_at > acting_beta(p.plan, evidence.gap):
        todo.append("Align on-policy: pairs drawn once cannot carry a policy this far from its reference.")
    if evidence.quality.value is not None and evidence.quality.value < p.plan.gate.least_quality:
        todo.append("Mix target examples into the distillation set: the reference's hits are diffuse.")
    return todo or ["Take another reference, or align before distilling."]


def _go(evidence: Evidence, p: Prediction) -> Verdict | None:
    if _doubts(evidence, p) or p.mass.low is None or p.mass.low <= SUCCESS:
        return None
    assert p.mass.value is not None
    because = f"the target is predicted to reach {percent(p.mass.value)} of outputs, at least {percent(p.mass.low)}"
    return Verdict("go", because, ("Launch it, and watch the share of rollouts that hit the target rise.",))


def _doubts(evidence: Evidence, p: Prediction) -> list[tuple[str, str]]:
    """What forbids `go` whatever the prediction: (reason, cure)."""
    s, least = evidence.quality, p.plan.gate.least_quality
    found = []
    if p.plan.rollouts is None:
        found.append(("the number of rollouts was not given", "Give --rollouts: responses drawn in all of training."))
    for own in (evidence,) if evidence.anchor is None else (evidence, evidence.anchor):
        found += _thin(own.draws)
    if p.plan.rollouts is not None and (expected := p.plan.rollouts * (evidence.mass.value or 0.0)) < MIN_EXPECTED_HITS:
        cure = "Plan more rollouts, or take a reference that draws the target more often."
        found.append((f"only {expected:.2g} hits are expected in {p.plan.rollouts:,} rollouts", cure))
    if s.value is None:
        cure = "Give preferred examples with their rewards, or a teacher."
        found.append((f"how good the hits are is unknown ({s.why})", cure))
    elif s.value < least:
        cure = "Mix target examples into the distillation set, or align before distilling."
        found.append((f"the hits are diffuse: they earn {percent(s.value)} of what preferred examples do", cure))
    return found


def _thin(draws: Draws) -> list[tuple[str, str]]:
    """What forbids `go` in the draws of one model: too few hits, or weights that do not add up."""
    found = []
    if not draws.pooled and draws.hits < MIN_HITS:
        seen = f"{draws.hits} of {draws.reference_draws:,} draws hit the target"
        cure = f"Give a teacher whose draws find the target (--teacher), or draw until there are {MIN_HITS} hits."
        found.append((f"{seen}, fewer than {MIN_HITS}", cure))
    if draws.pooled and _off_balance(draws.raw_total):
        cure = "Draw at temperature 1 without top-p or top-k, and score with the same tokens and template."
        found.append((f"weights sum to {draws.raw_total.value:.2f}, not 1: draws and log-probabilities disagree", cure))
    return found


def _off_balance(total: Number) -> bool:
    """Further from 1 than sampling error brings weights."""
    if total.value is None or total.low is None or total.high is None:
        return False
    return abs(total.value - 1) > max(OFF_BALANCE, OFF_BALANCE_WIDTHS * (total.high - total.low))


def _undecided(evidence: Evidence, p: Prediction) -> Verdict:
    doubts = _doubts(evidence, p)
    low, high = p.mass.low, p.mass.high
    if low is None or high is None:
        because = f"the prediction has no interval: {p.mass.why}"
        return Verdict("insufficient data", because, ("Draw for more prompts.",))
    span = f"the target may end anywhere from {percent(low)} to {percent(high)} of outputs"
    if doubts and low > SUCCESS:
        return Verdict("insufficient data", doubts[0][0], tuple(cure for _, cure in doubts))
    more = draws_to_settle(evidence, p)
    todo = [cure for _, cure in doubts]
    if more is not None:
        todo.append(f"Draw about {more:,} more responses of the reference: if what was seen holds, that settles it.")
    else:
        todo.append("More draws will not settle it, the plan is too near the threshold: a lower beta, more rollouts.")
    because = f"{doubts[0][0]}, and {span}" if doubts else span
    return Verdict("insufficient data", because, tuple(todo), more)


def draws_to_settle(evidence: Evidence, p: Prediction) -> int | None:
    """How many more draws of the reference would decide, if shares and rewards stay as they were seen.

    None where the interval of the model alone straddles one half, so that no number of draws would; for pooled draws
    both samples are meant to grow alike.
    """
    draws = evidence.draws
    if draws.prompts > 1 or evidence.mass.value is None or p.optimum is None:
        return None
    factor = 2
    while factor <= MOST_DRAWS_ADVISED:
        if _decided(_shrunk(evidence, p, factor)):
            return (factor - 1) * draws.reference_draws
        factor *= 2
    return None


def _decided(p: Prediction) -> bool:
    return _hopeless(p) or (p.mass.low is not None and p.mass.low > SUCCESS)


def _shrunk(evidence: Evidence, p: Prediction, factor: int) -> Prediction:
    """The prediction as it would be with `factor` times the draws and the same estimates."""
    assert p.optimum is not None and p.tilted_at is not None
    m0, s = evidence.mass, evidence.quality
    assert m0.value is not None
    if not evidence.draws.hits:  # a run without hits would bound the mass by the rule of three
        n = evidence.draws.reference_draws * factor
        mass = Number(0.0, *clopper_pearson(0, n))
    else:
        mass = _narrower(m0, factor)
    quality = _nearer(s, factor)
    best = replace(p.optimum, mass=_narrower(p.optimum.mass, factor))
    grown = replace(evidence, mass=mass, quality=quality, tilts={p.tilted_at: best})
    return predict(grown, p.plan)


def _narrower(m: Number, factor: int) -> Number:
    """The interval of a share, 1 / sqrt(factor) as wide on the scale of log odds."""
    if m.value is None or m.low is None or m.high is None or not 0 < m.value < 1:
        return m
    with np.errstate(divide="ignore"):
        low, centre, high = logit([m.low, m.value, m.high])
    low, high = (centre + (end - centre) / math.sqrt(factor) for end in (low, high))
    return Number(m.value, float(expit(low)), float(expit(high)))


def _nearer(s: Number, factor: int) -> Number:
    """The same on the plain scale."""
    if s.value is None or s.low is None or s.high is None:
        return s
    root = math.sqrt(factor)
    return Number(s.value, s.value + (s.low - s.value) / root, s.value + (s.high - s.value) / root)


def percent(share: float) -> str:
    """A share as a person reads it: two digits, never "0 %" for what is not 0."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if 0.01 <= share <= 0.99:
        return f"{100 * share:.2g} %"
    if share < 1e-4:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if share < 0.01 else "more than 99 %"
