"""Do two recipes vary equally from seed to seed? Tested by swapping the members of pairs; no normality is supposed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from alignfirst.stats.intervals import ALPHA, MIN_SEEDS, Floats, as_samples

FIRST_SWAPS = 4096
SMALL = 0.01  # a p below it from the first swaps is computed from more of them where the family asks for more
SWAPS_A_TEST = 100  # the smallest p, corrected for the family, is 1 / 100 then: well below ALPHA
AT_A_TIME = 32  # tests, which bounds memory
ROUNDING = 1e-12  # sums in another order differ by rounding


def seeds_needed(family: int) -> int:
    """Paired seeds with which a test by swaps can fall below ALPHA after correction for `family` (>= 1) tests.

    n pairs have 2^(n-1) swaps that differ, and a shift by the difference of one pair makes that pair equal, so no p is
    below 2^(2-n): 7 seeds for one test, 8 for two, 12 for 51.
    """
    return max(MIN_SEEDS, 3 + math.floor(math.log2(family / ALPHA)))


def swap_spread_p(x: ArrayLike, y: ArrayLike, family: int = 1) -> Floats:
    """Two-sided p of equal spread over the pairs [..., S], where NaN is a missing seed; NaN below MIN_SEEDS.

    The largest of several p's, each the share of swaps (see `_swaps`) with a difference as large as the observed one:

    - Both sides are centred at their medians (Brown and Forsythe 1974), then pairs are swapped; the difference is that
      of the sums of squares. Alone it errs with a family: a median jumps from mode to mode.
    - The values are swapped as they are; the difference is that of the two variances over their sum, taken anew after
      every swap. Exact where the recipes follow one law, and wrong where their means differ.
    - The same after one side was moved by d, for every d in the middle half of the paired differences: close to exact
      where the laws differ by a shift alone, whatever their shape.

    Where one of them is above ALPHA nothing is decided, and those after it are not computed. `family` is the number of
    tests that p will be corrected for: more of them ask for more swaps.
    """
    x, y = np.broadcast_arrays(as_samples(x), as_samples(y))
    shape, seeds = x.shape[:-1], x.shape[-1]
    x, y = x.reshape(-1, seeds), y.reshape(-1, seeds)
    there = ~(np.isnan(x) | np.isnan(y))
    n = there.sum(-1)
    swaps = max(FIRST_SWAPS, 2 ** math.ceil(math.log2(SWAPS_A_TEST * max(family, 1))))
    p = np.full(len(x), np.nan)
    for pairs in np.unique(n[n >= MIN_SEEDS]):
        chosen = np.flatnonzero(n == pairs)
        at = np.argsort(~there[chosen], axis=-1, kind="stable")[:, :pairs]  # missing seeds go last, and off
        left, right = np.take_along_axis(x[chosen], at, -1), np.take_along_axis(y[chosen], at, -1)
        p[chosen] = _largest_p(left, right, swaps)
    return p.reshape(shape)


def _largest_p(x: Floats, y: Floats, swaps: int) -> Floats:
    """`swap_spread_p` of tests [G, n] without missing seeds: few swaps first, more where p is small."""
    top = np.maximum(np.abs(x).max(-1), np.abs(y).max(-1))[:, None]
    top = np.where(top > 0, top, 1.0)
    x, y = x / top, y / top
    p = np.zeros(len(x))
    for most in dict.fromkeys((FIRST_SWAPS, swaps)):
        signs = _swaps(x.shape[-1], most)
        still = np.flatnonzero(p <= SMALL)
        p[still] = _centred_p(x[still], y[still], signs)
        for g in still[p[still] <= ALPHA]:
            p[g] = max(p[g], _shifted_p(x[g], y[g], signs))
    return p


@lru_cache(maxsize=16)
def _swaps(n: int, most: int) -> Floats:
    """Ways to swap n pairs, [W, n] of +-1, the observed one first.

    All 2^(n-1) of them where that is not more than `most` (swapping every pair changes no test), else `most`: random
    ones from a fixed seed and the observed one.
    """
    if 2 ** (n - 1) <= most:
        swapped = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    else:
        random = np.random.default_rng(0).integers(0, 2, (most - 1, n))
        swapped = np.concatenate([np.zeros((1, n), random.dtype), random])
    return np.where(swapped, -1.0, 1.0)


def _centred_p(x: Floats, y: Floats, signs: Floats) -> Floats:
    """[G], shares of the swaps [W, n] with a difference in squares about the medians as large as the observed one."""
    gaps = (x - np.median(x, -1, keepdims=True)) ** 2 - (y - np.median(y, -1, keepdims=True)) ** 2
    p = np.empty(len(x))
    for g in range(0, len(x), AT_A_TIME):
        found = np.abs(gaps[g : g + AT_A_TIME] @ signs.T)
        p[g : g + AT_A_TIME] = (found >= found[:, :1] * (1 - ROUNDING)).mean(-1)
    return p


def _shifted_p(x: Floats, y: Floats, signs: Floats) -> float:
    """Largest p of swapping x - d and y, over d = 0 and the middle half of the paired differences.

    With u, v the deviations from the means and e = (mean(x - d) - mean(y)) / 2, the members of a pair are u + e and
    v - e about the common mean. After swaps s the difference of the sums of squares about the new means is
    sum s (u^2 - v^2) + 2 e sum s (u + v), and their sum is
    U - C^2 / 2n - 2 e E C / n + 2 e^2 (n - E^2 / n) with U = sum u^2 + v^2, C = sum s (u - v), E = sum s.
    """
    n = len(x)
    u, v = x - x.mean(), y - y.mean()
    middle = np.sort(v - u)[n // 4 : n - n // 4] / 2
    squares, sums, c, e_sum = (signs @ np.stack([u**2 - v**2, u + v, u - v, np.ones(n)], 1)).T
    largest = 0.0
    for e in np.unique(np.append(middle, (x.mean() - y.mean()) / 2)):
        apart = np.abs(squares + 2 * e * sums)
        total = (u**2 + v**2).sum() - c**2 / (2 * n) - 2 * e * e_sum * c / n + 2 * e**2 * (n - e_sum**2 / n)
        largest = max(largest, float((apart * total[0] >= apart[0] * total * (1 - ROUNDING)).mean()))
        if largest > ALPHA:
            break
    return largest
