"""What training will come to: the optimum, times a gate for how much of it the planned rollouts can find."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, logit

from alignfirst.auditing.constants import (
    DENSE,
    GATES,
    HARD_LABELS,
    MASS_SLACK,
    ODDS,
    PULL_AT,
    REFUSED,
    REWARD_SLACK,
    TEXT_GATES,
    UNPREDICTED,
    Gate,
)
from alignfirst.auditing.pooled_draws import Draws, reference_mass, reference_reward
from alignfirst.auditing.sample_tilt import Tilt, tilt
from alignfirst.auditing.share_intervals import Number, Z, clustered_mean
from alignfirst.errors import InputError
from alignfirst.theory.beta import checked_beta
from alignfirst.theory.objectives import ALGORITHMS


@dataclass(frozen=True)
class Plan:
    """One alignment that is to be launched. `rollouts`: responses it will draw in all (offline pairs: both of each).

    `flip`: probability that a pair's label is turned round; `scale`: P(winner) = sigmoid(scale x reward gap).
    `text`: responses are sequences of tokens, which some algorithms find with fewer good hits.
    """

    algorithm: str
    beta: float
    rollouts: int | None = None
    labels: str = "bradley-terry"
    flip: float = 0.0
    scale: float = 1.0
    text: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError("algorithm must be a known one", self.algorithm, f"Choose from {', '.join(ALGORITHMS)}.")
        checked_beta(self.beta)
        if self.rollouts is not None and self.rollouts < 1:
            raise InputError("rollouts must be at least 1", self.rollouts, "Updates x responses an update.")
        if self.labels not in ("bradley-terry", "hard"):
            raise InputError("labels must be bradley-terry or hard", self.labels, "Sampled or argmax preferences?")
        if not 0 <= self.flip < 0.5:
            raise InputError("flip must be at least 0 and below 0.5", self.flip, "At 0.5 labels say nothing.")

    @property
    def gate(self) -> Gate:
        """The constants of its gate. KeyError for an algorithm that is refused."""
        return (TEXT_GATES if self.text and self.algorithm in TEXT_GATES else GATES)[self.algorithm]

    @property
    def refusal(self) -> str | None:
        """Why no number is predicted for this plan; None where one is."""
        return refusal(self.algorithm, self.labels)


def acting_beta(plan: Plan, gap: float | None) -> float:
    """The beta at which clean labels would have this plan's optimum, for a reward gap.

    Pairs whose labels are flipped say less of the reward: their log-odds are logit(f + (1 - 2 f) sigmoid(k gap))
    instead of k gap, which tends to (1 - 2 f) k gap for small gaps.
    """
    if not plan.flip or not ALGORITHMS[plan.algorithm].on_pairs:
        return plan.beta
    clean = plan.scale * (gap or 0.0)
    keeps = 1 - 2 * plan.flip
    said = keeps if clean < SMALL else float(logit(plan.flip + keeps * expit(clean))) / clean
    return plan.beta / said


def refusal(algorithm: str, labels: str) -> str | None:
    """Why no number is predicted for an algorithm on such labels; None where one is."""
    if labels == "hard" and ALGORITHMS[algorithm].on_pairs:
        return REFUSED.get(algorithm, HARD_LABELS)
    return REFUSED.get(algorithm, None if algorithm in GATES else UNPREDICTED)


@dataclass
class Evidence:
    """What the draws say of a reference, whatever is planned with it.

    Where the model that draws is not the reference (an anchored alignment), this is the drawing model's evidence:
    `anchor` is the reference's, whose optimum is sought, and `start` that of the model that training starts from.
    """

    draws: Draws
    mass: Number  # m0
    reward: Number  # R0
    outside: Number  # u: mean reward of the reference's draws outside T
    outside_sd: float | None  # sd(R | not T)
    preferred: Number  # mean reward of preferred examples
    quality: Number  # s
    tilts: dict[float, Tilt] = field(default_factory=dict)
    anchor: Evidence | None = None
    start: Evidence | None = None

    @property
    def gap(self) -> float | None:
        """What a hit should be worth more than a miss: the unit of beta. Hits stand in where nothing is preferred."""
        best = self.preferred.value if self.preferred.value is not None else _hits_mean(self.draws)
        if best is None or self.outside.value is None:
            return None
        return best - self.outside.value if best > self.outside.value else None

    def tilt(self, beta: float) -> Tilt:
        if beta not in self.tilts:
            anchor = self.anchor
            self.tilts[beta] = tilt(self.draws, beta, self.mass) if anchor is None else anchor.tilt(beta)
        return self.tilts[beta]


def examine(draws: Draws) -> Evidence:
    """Everything that needs neither beta nor algorithm."""
    u, sd = _outside(draws)
    preferred = _preferred(draws)
    quality = _quality(draws, u, preferred)
    return Evidence(draws, reference_mass(draws), reference_reward(draws), u, sd, preferred, quality)


def _outside(draws: Draws) -> tuple[Number, float | None]:
    if draws.in_target is None:
        return Number(None, why="no target was named"), None
    missed = ~draws.in_target & ~draws.teacher
    values = draws.reward[missed]
    if not len(values):
        return Number(None, why="every draw of the reference is in the target"), None
    number = _mean(values, draws.prompt[missed], draws.prompts)
    return number, float(values.std()) if len(values) > 1 else None


def _mean(values: Any, prompt: Any, prompts: int) -> Number:
    if len(values) == 1:
        return Number(float(values[0]), why="one value has no spread")
    cluster = prompt if prompts > 1 else np.arange(len(values))
    return clustered_mean(values, cluster, "values")


def _preferred(draws: Draws) -> Number:
    if draws.preferred is not None:
        return _mean(draws.preferred, np.zeros(len(draws.preferred), np.int64), 1)
    if draws.in_target is not None and (draws.in_target & draws.teacher).any():
        chosen = draws.in_target & draws.teacher
        return _mean(draws.reward[chosen], draws.prompt[chosen], draws.prompts)
    return Number(None, why="no preferred examples and no hits of a teacher")


def _hits_mean(draws: Draws) -> float | None:
    if draws.in_target is None or not draws.hits:
        return None
    w = draws.weight * draws.in_target
    return float((w * draws.reward).sum() / w.sum()) if w.sum() > 0 else None


def _quality(draws: Draws, outside: Number, preferred: Number) -> Number:
    """s = (mean R of the reference's hits - u) / (mean R of preferred examples - u), clipped to [0, 1]."""
    hits_mean = _hits_mean(draws)
    if preferred.value is None or outside.value is None:
        return Number(None, why=preferred.why if preferred.value is None else outside.why)
    if hits_mean is None:
        return Number(None, why="no hits")
    assert draws.in_target is not None
    gap = preferred.value - outside.value
    if not gap > 0:
        return Number(None, why="preferred examples earn no more than misses")
    w = draws.weight * draws.in_target
    se = math.sqrt(draws.variance(w / w.sum() * (draws.reward - hits_mean))) / gap
    s = (hits_mean - outside.value) / gap
    if draws.hits < 2 or not se > 0:
        return Number(float(np.clip(s, 0, 1)), why="too few different hits for an interval")
    return Number.of([float(np.clip(x, 0, 1)) for x in (s, s - Z * se, s + Z * se)])


SMALL = 1e-6  # a gap, in log-odds of a label, at which the limit is taken
UNKNOWN = Number(None, why="not computed")


@dataclass(frozen=True)
class Prediction:
    """Where training is predicted to end. Without `rollouts` it is the optimum, and `gate` says so."""

    plan: Plan
    refused: str | None
    reward: Number
    mass: Number
    optimum: Tilt | None = None  # at `tilted_at`
    tilted_at: float | None = None  # beta, or the floor of offline pairs
    gate: Number = UNKNOWN
    hits: Number = UNKNOWN  # L
    needed: float | None = None  # h
    dense: bool = False  # the gate was left out: a dense reward is a ladder

    @property
    def ess(self) -> float | None:
        return None if self.optimum is None else self.optimum.ess


def predict(evidence: Evidence, plan: Plan) -> Prediction:
    """The optimum of the reference at the plan's beta, gated by its rollouts, with an interval for both errors.

    The interval is that of m0 and of the tilt, carried through the gate, then widened by the model's own error: the
    odds of the target times and over ODDS, and the slacks. It was checked against trainings, see `constants`.
    """
    if plan.refusal:
        none = Number(None, why=plan.refusal)
        return Prediction(plan, plan.refusal, none, none)
    gate, gap = plan.gate, evidence.gap
    acting = acting_beta(plan, gap)
    beta = acting if gap is None else max(acting, gate.floor * gap)
    best = evidence.tilt(beta)
    dense = evidence.outside_sd is not None and evidence.outside_sd / acting > DENSE
    hits, g = _gate(evidence, plan, gate, dense)
    begin = evidence.start or evidence
    mass = _mass(begin.mass, best.mass, g)
    needed = None if gap is None else needed_hits(gate, acting, gap)
    reward = _reward(begin, evidence.gap, best, mass, g)
    return Prediction(plan, None, reward, mass, best, beta, g, hits, needed, dense)


def needed_hits(gate: Gate, beta: float, gap: float) -> float:
    """h: effective hits that let training find 63 % of what there is to gain."""
    return float(gate.hits * (beta / (PULL_AT * gap)) ** gate.pull)


def _gate(evidence: Evidence, plan: Plan, gate: Gate, dense: bool) -> tuple[Number, Number]:
    """L = N m0 s^gamma and g = 1 - exp(-L / h), each from both ends of m0's and s's intervals."""
    m0, s, gap = evidence.mass, evidence.quality, evidence.gap
    if plan.rollouts is None:
        why = "the number of rollouts was not given"
        return Number(None, why=why), Number(None, why=why)
    if m0.value is None:
        return Number(None, why=m0.why), Number(None, why=m0.why)
    hits = [None if m is None else plan.rollouts * m * q**gate.quality for m, q in _corners(m0, s)]
    effective = Number.of(hits, m0.why or s.why)
    if dense:
        return effective, Number(1.0, why="the reward is dense: a ladder leads to the target, hits are not waited for")
    if gap is None:
        return effective, Number(None, why="what a hit is worth is unknown: no hit and no preferred example was seen")
    h = needed_hits(gate, acting_beta(plan, gap), gap)
    return effective, Number.of([None if x is None else -math.expm1(-x / h) for x in hits], effective.why)


def _corners(m0: Number, s: Number) -> list[tuple[float | None, float]]:
    """(m0, s) at the estimate, at both low ends and at both high ends; an unknown s is taken as 1 and as anything."""
    known = s.value is not None
    low = s.low if s.low is not None else 0.0
    high = s.high if s.high is not None else 1.0
    assert m0.value is not None
    return [(m0.value, s.value if s.value is not None else 1.0), (m0.low, low if known else 0.0), (m0.high, high)]


def _mass(m0: Number, best: Number, g: Number) -> Number:
    """m_hat = m0 + g (m* - m0)."""
    if m0.value is None or best.value is None:
        return Number(None, why=m0.why or best.why)
    share = 1.0 if g.value is None else g.value
    value = m0.value + share * (best.value - m0.value)
    if m0.low is None or best.low is None or m0.high is None or best.high is None:
        return Number(value, why=m0.why or best.why)
    g_low, g_high = (share if end is None else end for end in (g.low, g.high))
    if g.value is None:
        g_low = 0.0  # whether anything is found depends on rollouts that nobody has named
    low = m0.low + g_low * (best.low - m0.low)
    high = m0.high + g_high * (best.high - m0.high)
    with np.errstate(divide="ignore"):
        low, high = float(expit(logit(low) - math.log(ODDS))), float(expit(logit(high) + math.log(ODDS)))
    return Number(value, max(min(low, value) - MASS_SLACK, 0.0), min(max(high, value) + MASS_SLACK, 1.0))


def _reward(begin: Evidence, gap: float | None, best: Tilt, mass: Number, g: Number) -> Number:
    """R_hat = R0 + g (R* - R0); the ends of m_hat's interval carry over in proportion, plus R*'s own error."""
    r0, top = begin.reward, best.reward
    if r0.value is None or top.value is None:
        return Number(None, why=r0.why or top.why)
    share = 1.0 if g.value is None else g.value
    value = r0.value + share * (top.value - r0.value)
    if top.low is None or top.high is None:
        return Number(value, why=top.why)
    slack = share * (top.high - top.low) / 2 + REWARD_SLACK * (gap or 0.0)
    if mass.low is None or mass.high is None or begin.mass.value is None or best.mass.value is None:
        return Number(value, why=mass.why)
    way = best.mass.value - begin.mass.value
    slope = (top.value - r0.value) / way if abs(way) > 1e-6 else 0.0
    ends = sorted(r0.value + (m - begin.mass.value) * slope for m in (mass.low, mass.high))
    return Number(value, min(ends[0], value) - slack, max(ends[1], value) + slack)


def ranking(evidence: Evidence, beta: float) -> float:
    """R0 + Var(R) / beta, capped at the best reward seen: a first-order guess that survives a collapsed tilt.

    For ranking references only; as a prediction of reward it is wrong.
    """
    draws = evidence.draws
    w = draws.weight / draws.prompts
    mean = float((w * draws.reward).sum())
    variance = float((w * (draws.reward - mean) ** 2).sum())
    return min(mean + variance / beta, float(draws.reward.max()))


def plain(prediction: Prediction) -> Mapping[str, Any]:
    """For JSON."""
    best = prediction.optimum
    return {
        "algorithm": prediction.plan.algorithm,
        "beta": prediction.plan.beta,
        "rollouts": prediction.plan.rollouts,
        "refused": prediction.refused,
        "reward": prediction.reward.plain(),
        "target_mass": prediction.mass.plain(),
        "optimum_reward": None if best is None else best.reward.plain(),
        "optimum_target_mass": None if best is None else best.mass.plain(),
        "tilted_at_beta": prediction.tilted_at,
        "effective_sample_size": prediction.ess,
        "gate": prediction.gate.plain(),
        "effective_hits": prediction.hits.plain(),
        "needed_hits": prediction.needed,
        "dense_reward": prediction.dense,
    }
