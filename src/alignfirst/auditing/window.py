"""At which betas alignment is predicted to work, how many rollouts it takes, and how many draws show the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignfirst.auditing.constants import ENDLESS, MIN_ESS, SEEN, SUCCESS, WINDOW_ENDS, WINDOW_POINTS
from alignfirst.auditing.gated_prediction import Evidence, Plan, Prediction, acting_beta, needed_hits, predict
from alignfirst.auditing.share_intervals import Number
from alignfirst.theory.beta import BETAS
from alignfirst.theory.coverage import draws_needed


@dataclass(frozen=True)
class Window:
    """Predictions over beta for one algorithm.

    `upper`: the beta below which target mass is predicted above one half, its interval from where the ends of the
    prediction's interval cross. `lower`: the smallest beta at which the draws still carry a tilt.
    """

    points: tuple[Prediction, ...]
    upper: Number
    lower: float | None
    note: str

    def plain(self) -> dict[str, Any]:
        """For JSON: curves as lists, null where there is no number."""
        return {
            "upper_beta": self.upper.plain(),
            "lower_beta": self.lower,
            "note": self.note,
            "beta": [p.plan.beta for p in self.points],
            "target_mass": [p.mass.value for p in self.points],
            "target_mass_low": [p.mass.low for p in self.points],
            "target_mass_high": [p.mass.high for p in self.points],
            "reward": [p.reward.value for p in self.points],
            "reward_low": [p.reward.low for p in self.points],
            "reward_high": [p.reward.high for p in self.points],
            "effective_sample_size": [p.ess for p in self.points],
        }


def beta_window(evidence: Evidence, plan: Plan) -> Window:
    """The window of the plan's algorithm and rollouts, on a geometric grid about the reward gap and the plan's beta."""
    gap = evidence.gap or plan.beta
    low, high = min(WINDOW_ENDS[0] * gap, plan.beta / 4), max(WINDOW_ENDS[1] * gap, plan.beta * 4)
    betas = np.geomspace(max(low, BETAS[0]), min(high, BETAS[1]), WINDOW_POINTS).clip(
        *BETAS
    )  # ends are off by rounding
    points = tuple(predict(evidence, replace(plan, beta=float(b))) for b in betas)
    if points[0].refused:
        return Window((), Number(None, why=points[0].refused), None, points[0].refused)
    if points[0].mass.value is None:
        return Window(points, Number(None, why=points[0].mass.why), None, str(points[0].mass.why))
    carried = [p.ess is not None and p.ess >= MIN_ESS for p in points]
    if not any(carried):
        why = "the draws carry no tilt at any beta"
        return Window(points, Number(None, why=why), None, why)
    lower = float(betas[carried.index(True)])
    crossings = [_crossing(betas, [getattr(p.mass, end) for p in points]) for end in ("low", "value", "high")]
    return Window(points, *_upper(crossings, lower, float(betas[-1])))


def _upper(crossings: Sequence[float | None], lower: float, highest: float) -> tuple[Number, float, str]:
    low, value, high = crossings
    if value is not None and math.isinf(value):
        why = "the target has more than half of the reference already"
        return Number(None, why=why), lower, f"works at any beta from {lower:.3g} on: {why}"
    if value is None or value < lower:
        why = f"no beta from {lower:.3g} on is predicted to work; below, the draws cannot tell"
        return Number(None, why=why), lower, why
    # An end that crosses nowhere lies beyond what the draws can tell below, or beyond the grid above.
    sure = f"sure below {low:.3g}" if low is not None and low > lower else "nowhere sure"
    top = None if high is None or math.isinf(high) else high
    number = Number(value, low or 0.0, top, None if top is not None else f"open beyond {highest:.3g}")
    return number, lower, f"predicted to work for {lower:.3g} <= beta < {value:.3g}, {sure}"


def _crossing(betas: np.ndarray, mass: Sequence[float | None]) -> float | None:
    """Largest beta at which mass falls through one half, between grid points by log beta; inf where it never falls."""
    above = [m is not None and m > SUCCESS for m in mass]
    if not any(above):
        return None
    last = len(above) - 1 - above[::-1].index(True)
    if last == len(above) - 1:
        return math.inf
    left, right = mass[last], mass[last + 1]
    assert left is not None
    share = 0.0 if right is None else (left - SUCCESS) / (left - right)
    return float(betas[last] * (betas[last + 1] / betas[last]) ** share)


@dataclass(frozen=True)
class Needs:
    """Numbers of draws. `hits`: expected in the planned rollouts; `to_see`: draws that show T once with probability
    SEEN; `rollouts`: that bring the predicted mass to one half."""

    hits: Number
    to_see: Number
    rollouts: Number

    def plain(self) -> dict[str, Any]:
        return {
            "expected_hits": self.hits.plain(),
            "draws_to_see_target": self.to_see.plain(),
            "rollouts_needed": self.rollouts.plain(),
        }


def needs(evidence: Evidence, prediction: Prediction) -> Needs:
    """From the reference's mass and its optimum. Ends of intervals carry over: more mass, fewer draws."""
    m0, plan = evidence.mass, prediction.plan
    if m0.value is None:
        none = Number(None, why=m0.why)
        return Needs(none, none, none)
    ends = (m0.value, m0.low, m0.high)
    hits = Number(None, why="the number of rollouts was not given")
    if plan.rollouts is not None:
        hits = Number.of([None if m is None else m * plan.rollouts for m in ends], m0.why)
    seen = [None if m is None else float(draws_needed(m, SEEN)) for m in (m0.value, m0.high, m0.low)]
    return Needs(hits, _open(seen, m0.why), _rollouts(evidence, prediction))


def _open(values: Sequence[float | None], why: str | None) -> Number:
    """A number of draws; infinitely many is no number."""
    value, low, high = (None if v is None or v > ENDLESS else v for v in values)
    return Number(value, low, high, why or "there is no upper bound within reach")


def _rollouts(evidence: Evidence, p: Prediction) -> Number:
    if p.refused or p.optimum is None:
        return Number(None, why=p.refused or "no prediction")
    if p.dense:
        return Number(None, why="the reward is dense: hits are not what training waits for")
    m0, best, s, gap = evidence.mass, p.optimum.mass, evidence.quality, evidence.gap
    if best.value is None or gap is None:
        return Number(None, why=best.why or "no hit and no preferred example was seen")
    gate = p.plan.gate
    h = needed_hits(gate, acting_beta(p.plan, gap), gap)
    quality = [1.0 if q is None else q for q in (s.value, s.high, s.low)]
    masses = [(m0.value, best.value), (m0.high, best.high), (m0.low, best.low)]
    found = [_rollouts_for(m, top, q**gate.quality, h) for (m, top), q in zip(masses, quality, strict=True)]
    if found[0] is None or math.isinf(found[0]):
        return Number(None, why="no number of rollouts does: the optimum of this reference stays below one half")
    return _open(found, None)


def _rollouts_for(m0: float | None, best: float | None, quality: float, h: float) -> float | None:
    """N with m0 + (1 - exp(-N m0 s^gamma / h)) (m* - m0) = 1/2, rounded up."""
    if m0 is None or best is None:
        return None
    if m0 >= SUCCESS:
        return 0.0
    if best <= SUCCESS or m0 * quality <= 0:
        return math.inf
    return float(math.ceil(-h * math.log1p(-(SUCCESS - m0) / (best - m0)) / (m0 * quality)))
