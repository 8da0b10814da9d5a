"""Which order to take: align then distil (A-K), or distil then align (K-A), called before either is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import logit

from alignfirst.auditing.constants import ON_POLICY, ORDER_LEVEL, ORDER_MASS, ORDER_MIN_HITS
from alignfirst.auditing.gated_prediction import Evidence, Prediction
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.auditing.share_intervals import Number
from alignfirst.errors import InputError

OrderCall = Literal["align-distil", "level", "distil-align", "insufficient data"]


@dataclass(frozen=True)
class Order:
    """Both predicted ends in reward, and which is ahead by more than ORDER_LEVEL of the reward gap."""

    call: OrderCall
    because: str
    align_distil: Number
    distil_align: Number


def order(
    teacher: Sample,
    teacher_evidence: Evidence,
    teacher_prediction: Prediction,
    student_prediction: Prediction,
    selectivity: float,
    distil_samples: int,
) -> Order:
    """Compare the predicted ends of both orders for one plan.

    teacher: p's own draws with `logp_teacher`. `teacher_evidence` and `teacher_prediction` are the audit of p as its
    own reference, `student_prediction` that of the distilled student. A-K ends where the aligned teacher, sharpened by
    `selectivity` c (a language model sampled at temperature 1/c) and seen through `distil_samples` examples, ends: p's
    draws weighted p^(c-1) exp(c (R/beta - d 1_T)), d = logit m* - logit m_hat being what the gate takes from p.
    Refuses off-policy algorithms: for pairs drawn once both ends were not predictable in this way.
    """
    if not selectivity > 0 or distil_samples < 1:
        given = (selectivity, distil_samples)
        raise InputError("selectivity must be > 0 and distil samples >= 1", given, "Say how the student is made.")
    plan = student_prediction.plan
    end = student_prediction.reward
    unknown = Number(None, why="not predicted")
    if plan.algorithm not in ON_POLICY:
        because = f"the order is not predictable for {plan.algorithm}: only for {', '.join(ON_POLICY)}"
        return Order("insufficient data", because, unknown, end)
    best, reached = teacher_prediction.optimum, teacher_prediction.mass.value
    if best is None or best.mass.value is None or reached is None or teacher.logp_teacher is None or end.value is None:
        because = "it takes a target, and a teacher's own draws with their log-probabilities"
        return Order("insufficient data", because, unknown, end)
    beta = teacher_prediction.tilted_at or plan.beta
    discount = _log_odds(best.mass.value) - _log_odds(reached)
    assert teacher.in_target is not None
    if (seen := int(teacher.in_target.sum())) < ORDER_MIN_HITS:
        because = f"{seen} of the teacher's own draws hit the target, fewer than {ORDER_MIN_HITS}"
        return Order("insufficient data", because, unknown, end)
    first = aligned_then_distilled(teacher, beta, discount, selectivity, distil_samples)
    why = "only the call made from it was checked against training"
    level = ORDER_LEVEL * (teacher_evidence.gap or 1.0)
    ahead = first - end.value
    call: OrderCall = "level" if abs(ahead) <= level else "align-distil" if ahead > 0 else "distil-align"
    because = f"predicted reward {first:.3f} by align-distil, {end.value:.3f} by distil-align"
    return Order(call, because, Number(first, why=why), end)


def aligned_then_distilled(
    teacher: Sample, beta: float, discount: float, selectivity: float, distil_samples: int
) -> float:
    """Mean reward of the student of the aligned teacher.

    Few draws may carry most of the weight. A rule on their effective number was tried and dropped: on the fitting half
    of the evidence the calls that it refused were as often right as the others.
    """
    assert teacher.in_target is not None and teacher.logp_teacher is not None
    c = selectivity
    log_w = (c - 1) * teacher.logp_teacher + c * (teacher.reward / beta - discount * teacher.in_target)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    reward, mass = float(w @ teacher.reward), float(w[teacher.in_target].sum())
    learnt = -math.expm1(-distil_samples * mass / ORDER_MASS)
    return learnt * reward


def _log_odds(m: float) -> float:
    return float(logit(np.clip(m, 1e-12, 1 - 1e-12)))
