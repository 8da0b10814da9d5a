"""Intervals of shares and means: exact for plain draws, by effective sample size for weighted or clustered ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from alignfirst.auditing.constants import LEVEL, MIN_PROMPTS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

Z = float(ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Number:
    """A number with its interval at LEVEL, or with the reason `why` it has none (and no value either)."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            x = getattr(self, name)
            object.__setattr__(self, name, None if x is None or math.isnan(x) else float(x))
        if (self.low is None or self.high is None) and not self.why:
            raise ValueError("a number without an interval must say why")

    @classmethod
    def of(cls, ends: Sequence[float | None], why: str | None = None) -> Number:
        """From (value, low, high)."""
        value, low, high = ends
        return cls(value, low, high, why)

    def plain(self) -> dict[str, Any]:
        """For JSON; an infinite end becomes null and `why` says that the interval is open."""
        found = asdict(self)
        for name in ("value", "low", "high"):
            if found[name] is not None and math.isinf(found[name]):
                found[name] = None
                found["why"] = found["why"] or f"{name} has no bound"
        return found


def clopper_pearson(hits: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's (1934) interval of a share; `hits` and `n` need not be whole. n <= 0 gives (0, 1)."""
    if not n > 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def share_interval(share: float, variance: float, df: float, level: float = LEVEL) -> tuple[float, float]:
    """Korn and Graubard's (1998) interval of a share that was estimated with weights or from clusters.

    Clopper-Pearson on the number n = share (1 - share) / variance of plain draws that would be as precise, shrunk by
    (z / t_df)^2, because the variance itself is an estimate on `df` degrees of freedom. For plain draws with df = inf
    it is Clopper-Pearson itself.
    """
    if not 0 < share < 1 or not variance > 0:
        return 0.0, 1.0
    n = share * (1 - share) / variance
    if not math.isinf(df):
        n *= (ndtri((1 + level) / 2) / stdtrit(max(df, 1.0), (1 + level) / 2)) ** 2
    low, high = clopper_pearson(share * n, n, level)
    # Where n is below 1 the Beta quantiles underflow; the estimate itself always lies within its interval.
    return min(low, share), max(high, share)


def share(hits: int, n: int, what: str) -> Number:
    """Share of plain draws with its Clopper-Pearson interval."""
    if n == 0:
        return Number(None, why=f"no {what}")
    return Number(hits / n, *clopper_pearson(hits, n))


def clustered_share(hit: ArrayLike, cluster: Ints, what: str) -> Number:
    """Share of rows with a hit (values in [0, 1]); rows of one cluster (a prompt) are not independent.

    Clopper-Pearson where every row is its own cluster and every value is 0 or 1, Korn-Graubard elsewhere.
    """
    x = np.asarray(hit, np.float64)
    if not len(x):
        return Number(None, why=f"no {what}")
    mean, clusters = float(x.mean()), len(np.unique(cluster))
    whole = bool(np.isin(x, (0.0, 1.0)).all())
    if clusters == len(x) and whole:
        return Number(mean, *clopper_pearson(float(x.sum()), len(x)))
    if clusters < MIN_PROMPTS:
        return Number(mean, why=f"{clusters} prompts are too few for an interval over prompts")
    if mean in (0.0, 1.0):  # no spread to estimate a variance from: as if each prompt were one draw
        return Number(mean, *clopper_pearson(mean * clusters, clusters))
    totals = np.bincount(np.unique(cluster, return_inverse=True)[1], x - mean)
    variance = clusters / (clusters - 1) * float((totals**2).sum()) / len(x) ** 2
    if not variance > 0:
        return Number(mean, *clopper_pearson(mean * clusters, clusters))
    return Number(mean, *share_interval(mean, variance, clusters - 1))


def clustered_mean(x: ArrayLike, cluster: Ints, what: str) -> Number:
    """Mean over rows and its t interval; rows of one cluster (a prompt) are not independent."""
    values = np.asarray(x, np.float64)
    if not len(values):
        return Number(None, why=f"no {what}")
    mean, ids = float(values.mean()), np.unique(cluster, return_inverse=True)[1]
    clusters = int(ids.max()) + 1
    if clusters < MIN_PROMPTS:
        return Number(mean, why=f"{clusters} prompts are too few for an interval over prompts")
    totals = np.bincount(ids, values - mean)
    se = math.sqrt(clusters / (clusters - 1) * float((totals**2).sum())) / len(values)
    if not se > 1e-12 * float(np.abs(values).max()):
        return Number(mean, why="all values are the same")
    half = float(stdtrit(clusters - 1, (1 + LEVEL) / 2)) * se
    return Number(mean, mean - half, mean + half)
