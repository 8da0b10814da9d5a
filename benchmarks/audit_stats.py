"""What `audit_power.py` computes of predictions and outcomes: scores, bootstrap over teachers, the fit of constants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from alignfirst.auditing.constants import PULL_AT, Gate
from alignfirst.auditing.gated_prediction import Evidence

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

HITS = (1.0, 3.0, 10.0, 30.0, 60.0, 100.0, 300.0, 1000.0)
QUALITY = (0.0, 2.0, 4.0, 6.0, 8.0)
PULL = (0.0, 1.0, 2.0, 3.0)
FLOORS = (0.17, 0.20, 0.22, 0.25, 0.30)  # of offline pairs; other algorithms have none
LEAST_QUALITY = (0.6, 0.7, 0.8)
GO_RIGHT = 0.97
DRAWS = 2_000


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation; NaN where one side is constant."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def auc(score: Floats, success: Bools) -> float:
    """Chance that a success scores above a failure, ties half; NaN where there is only one kind."""
    n1 = int(success.sum())
    n0 = len(success) - n1
    if not n0 or not n1:
        return float("nan")
    return float((rankdata(score)[success].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def share(hit: Bools, of: Bools) -> float:
    return float(hit[of].mean()) if of.any() else float("nan")


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def over_teachers(teacher: NDArray[np.int64], statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
    """A statistic of rows, and its percentile interval when whole teachers are drawn again."""
    ids = np.unique(teacher)
    members = [np.flatnonzero(teacher == i) for i in ids]
    random = np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([members[i] for i in random.integers(0, len(ids), len(ids))])) for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(statistic(np.arange(len(teacher))), float(low), float(high))


@dataclass(frozen=True)
class FitCell:
    """One training of the fitting half, and the audit's evidence on its reference."""

    evidence: Evidence
    beta: float
    rollouts: int
    reward: float
    target_mass: float


def fit(cells: Sequence[FitCell], floors: Sequence[float]) -> tuple[Gate, float]:
    """The gate with the smallest (mean absolute error of reward) + (1 - AUC of success); the first of equals."""
    reward = np.array([c.reward for c in cells])
    success = np.array([c.target_mass for c in cells]) > 0.5
    best: tuple[float, Gate] | None = None
    for floor in floors:
        r0, m0, s, ratio, rollouts, r_star, m_star = _features(cells, floor)
        for hits, quality, pull in itertools.product(HITS, QUALITY, PULL):
            g = -np.expm1(-rollouts * m0 * s**quality / (hits * (ratio / PULL_AT) ** pull))
            error = float(np.abs(r0 + g * (r_star - r0) - reward).mean())
            loss = error + 1 - auc(m0 + g * (m_star - m0), success)
            if best is None or loss < best[0] - 1e-12:
                best = loss, Gate(hits, quality, pull, floor, 0.0)
    assert best is not None
    return best[1], best[0]


def _features(cells: Sequence[FitCell], floor: float) -> Iterator[Floats]:
    rows = []
    for c in cells:
        e = c.evidence
        gap = e.gap or 1.0
        best = e.tilt(max(c.beta, floor * gap))
        s = e.quality.value
        rows.append(
            (
                e.reward.value,
                e.mass.value,
                0.0 if s is None else s,
                c.beta / gap,
                c.rollouts,
                best.reward.value,
                best.mass.value,
            )
        )
    return iter(np.array(rows, np.float64).T)
