"""Intervals and tests over seeds, on arrays: no rows, no files, no randomness but a seeded bootstrap.

Everything works along the last axis, where a NaN is a missing seed. An interval or a p-value from fewer than
`MIN_SEEDS` seeds is NaN: certainty is earned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit

from alignfirst.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MIN_SEEDS = 5
LEVEL = 0.95
ALPHA = 0.05  # a corrected p below it decides
# Sums of a few dozen doubles are wrong by a few units in the last place; below this, relative, is no difference.
ROUNDING = 16 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Description:
    """A sample along the last axis, described. Every field has the shape of the axes before it."""

    n: Ints
    mean: Floats
    iqm: Floats
    sd: Floats  # ddof 1, NaN for one value
    low: Floats  # t interval of the mean; NaN below MIN_SEEDS and where all values are the same
    high: Floats


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test on pairs along the last axis, with its interval for the estimate."""

    n: Ints
    estimate: Floats
    low: Floats
    high: Floats
    p: Floats
    degenerate: Bools  # the textbook test is undefined here (no variance): no interval; see the function for p


def level_words(level: float | None = None) -> str:
    """A level of intervals as readers see it, "95 %"; that of this module where none is given."""
    return f"{100 * (LEVEL if level is None else level):g} %"


def as_samples(x: ArrayLike) -> Floats:
    """Floats with every non-finite value as NaN, the mark of a missing seed."""
    x = np.asarray(x, np.float64)
    return np.where(np.isfinite(x), x, np.nan)


def moments(x: Floats) -> tuple[Ints, Floats, Floats]:
    """n, mean and standard deviation (ddof 1) of the values that are there, along the last axis."""
    there = ~np.isnan(x)
    n = there.sum(-1)
    with np.errstate(all="ignore"):
        mean = np.where(there, x, 0.0).sum(-1) / n
        squares = np.where(there, (x - mean[..., None]) ** 2, 0.0).sum(-1)
        sd = np.sqrt(squares / np.where(n > 1, n - 1, np.nan))
    return n, mean, sd


def difference(x: ArrayLike, y: ArrayLike) -> Floats:
    """x - y of the pairs that are there, NaN elsewhere."""
    with np.errstate(all="ignore"):
        return as_samples(as_samples(x) - as_samples(y))


def largest(x: Floats) -> Floats:
    """Largest absolute value along the last axis, 0 where there is none."""
    top: Floats = np.where(np.isnan(x), 0.0, np.abs(x)).max(-1, initial=0.0)
    return top


def without_spread(x: Floats) -> Bools:
    """Whether two values or more are there and all are the same, to rounding, along the last axis."""
    flat: Bools = moments(x)[2] <= ROUNDING * largest(x)
    return flat


def interquartile_mean(x: ArrayLike) -> Floats:
    """Mean of the middle half, as in rliable (Agarwal et al. 2021, arXiv 2108.13264): a 25 % trimmed mean.

    With n not a multiple of 4, floor(n / 4) values go at each end (as `scipy.stats.trim_mean` does), so a little
    more than half remains: below 4 values it is the mean.
    """
    x = np.sort(as_samples(x), axis=-1)  # NaN last
    n = (~np.isnan(x)).sum(-1, keepdims=True)
    rank = np.arange(x.shape[-1])
    kept = (rank >= n // 4) & (rank < n - n // 4)
    with np.errstate(all="ignore"):
        mean: Floats = np.where(kept, x, 0.0).sum(-1) / kept.sum(-1)
    return mean


def t_interval(n: Ints, mean: Floats, sd: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """mean -+ t_{n-1} sd / sqrt(n); NaN below MIN_SEEDS."""
    with np.errstate(all="ignore"):
        half = stdtrit(np.maximum(n - 1, 1), (1 + level) / 2) * sd / np.sqrt(n)
        half = np.where(n >= MIN_SEEDS, half, np.nan)
        return mean - half, mean + half


def describe(x: ArrayLike, level: float = LEVEL) -> Description:
    """n, mean, interquartile mean, sd and t interval along the last axis.

    Where all values are the same the interval is NaN: a width of zero would claim a certainty that nothing earned.
    """
    x = as_samples(x)
    n, mean, sd = moments(x)
    sd_or_nan = np.where(without_spread(x), np.nan, sd)
    low, high = t_interval(n, mean, sd_or_nan, level)
    return Description(n, mean, interquartile_mean(x), sd, low, high)


def paired_t(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> PairedTest:
    """Mean of x - y over the pairs [..., S], its t interval and two-sided p (Student 1908).

    Where all differences are the same, t is undefined: there is no interval, and p is that of the sign test,
    2^(1-n), or 1 where they are all zero.
    """
    x, y = as_samples(x), as_samples(y)
    differences = difference(x, y)
    n, mean, sd = moments(differences)
    rounding = ROUNDING * largest(np.fmax(np.abs(x), np.abs(y)) + 0 * differences)
    enough = n >= MIN_SEEDS
    constant = enough & (sd <= rounding)
    low, high = t_interval(n, mean, np.where(constant, np.nan, sd), level)
    with np.errstate(all="ignore"):
        p = 2 * stdtr(np.maximum(n - 1, 1), -np.abs(mean) / sd * np.sqrt(n))
    sign_p = np.where(np.abs(mean) <= rounding, 1.0, 2.0 ** (1.0 - n))
    p = np.where(enough, np.where(constant, sign_p, p), np.nan)
    return PairedTest(n, mean, low, high, p, constant)


def pitman_morgan(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> PairedTest:
    """Ratio sd(x) / sd(y) over the pairs [..., S] with the Pitman-Morgan test of equal variances and its interval.

    Pitman (1939), Morgan (1939): with F = var(x) / var(y) and r the correlation,
    t = (F - 1) sqrt(n - 2) / (2 sqrt(F (1 - r^2))) on n - 2 degrees of freedom, and with
    K = 1 + 2 (1 - r^2) t_c^2 / (n - 2) the interval of the variance ratio is F (K -+ sqrt(K^2 - 1)).
    It supposes normal pairs. Where they are not, one outlying seed can decide it: see `swaps.swap_spread_p`.

    Undefined where a side has no spread or the sides are perfectly correlated: p is NaN there, or 1 where the
    differences are all the same, for then the spreads are the same.
    """
    x, y = as_samples(x), as_samples(y)
    missing = np.isnan(x) | np.isnan(y)
    x, y = np.where(missing, np.nan, x), np.where(missing, np.nan, y)
    (n, mean_x, sd_x), (_, mean_y, sd_y) = moments(x), moments(y)
    enough = n >= MIN_SEEDS
    with np.errstate(all="ignore"):
        products = np.where(missing, 0.0, (x - mean_x[..., None]) * (y - mean_y[..., None]))
        free = 1 - (products.sum(-1) / (n - 1) / sd_x / sd_y) ** 2  # 1 - r^2
        df = np.where(n > 2, n - 2, np.nan)
        flat_x, flat_y = without_spread(x), without_spread(y)
        ratio = np.where(flat_y, np.nan, np.where(flat_x, 0.0, sd_x / sd_y))
        degenerate = enough & (flat_x | flat_y | ~(free > 1e-12))
        t = (ratio - 1 / ratio) * np.sqrt(df / free) / 2
        p = 2 * stdtr(df, -np.abs(t))
        k_minus_1 = 2 * free * stdtrit(df, (1 + level) / 2) ** 2 / df
        factor = np.sqrt(1 + k_minus_1 + np.sqrt(k_minus_1 * (k_minus_1 + 2)))  # sqrt(K + sqrt(K^2 - 1))
        low, high = ratio / factor, ratio * factor
    same = degenerate & ~flat_x & ~flat_y & (np.abs(ratio - 1) <= 1e-12)
    defined = enough & ~degenerate
    p = np.where(same, 1.0, np.where(defined, p, np.nan))
    return PairedTest(n, ratio, np.where(defined, low, np.nan), np.where(defined, high, np.nan), p, degenerate)


def holm(p: ArrayLike) -> Floats:
    """Holm's (1979) step-down adjustment of p-values [m]: controls the chance of one false finding in the family.

    NaN (not tested) stays NaN and does not count. Equal p-values get equal adjusted ones.
    """
    p = np.asarray(p, np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def share_interval(won: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Clopper-Pearson (1934) interval of a share, `won` of `n` seeds; NaN below MIN_SEEDS."""
    won, n = np.asarray(won, np.float64), np.asarray(n, np.float64)
    tail = (1 - level) / 2
    with np.errstate(all="ignore"):
        low = np.where(won > 0, betaincinv(np.maximum(won, 1), n - won + 1, tail), 0.0)
        high = np.where(won < n, betaincinv(won + 1, np.maximum(n - won, 1), 1 - tail), 1.0)
    enough = n >= MIN_SEEDS
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def bootstrap(
    x: ArrayLike,
    statistic: Callable[[Floats], Floats],
    *,
    seed: int,
    draws: int = 10_000,
    level: float = LEVEL,
    method: str = "bca",
) -> tuple[float, float]:
    """Bootstrap interval of `statistic` over the values [S]; the same seed gives the same interval.

    `statistic` maps [..., S] to [...]. method: `bca` (bias-corrected and accelerated, Efron 1987) or `percentile`.
    Missing values are left out; NaN, NaN below MIN_SEEDS and where the statistic does not vary.
    """
    if method not in ("bca", "percentile"):
        raise InputError("method must be bca or percentile", method, "Use bca unless the statistic has no jackknife.")
    values = as_samples(x)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < MIN_SEEDS:
        return math.nan, math.nan
    resampled = values[np.random.default_rng(seed).integers(0, n, (draws, n))]
    drawn = np.sort(statistic(resampled))
    if drawn[0] == drawn[-1]:
        return math.nan, math.nan
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        point = float(statistic(values))
        below = (np.count_nonzero(drawn < point) + np.count_nonzero(drawn <= point)) / (2 * draws)
        bias = ndtri(np.clip(below, 0.5 / draws, 1 - 0.5 / draws))
        left_out = statistic(np.stack([np.delete(values, i) for i in range(n)]))
        pull = left_out.mean() - left_out
        spread = float((pull**2).sum())
        acceleration = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
        z = bias + ndtri(tails)
        tails = ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)
