"""Do two recipes vary equally from seed to seed? Tested by swapping the members of pairs; no normality is supposed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from alignfirst.stats.intervals import ALPHA, MIN_SEEDS, Bools, Floats, as_samples

FIRST_SWAPS = 4096
SWAPS_A_TEST = 100  # the smallest p, corrected for the family, is 1 / 100 then: well below ALPHA
ROUNDING = 1e-12  # sums in another order differ by rounding


def seeds_needed(family: int) -> int:
    """Paired seeds with which a test by swaps can fall below ALPHA after correction for `family` (>= 1) tests.

    n pairs have 2^(n-1) swaps that differ, so no p is below 2^(1-n): 6 seeds for one test, 7 for two, 11 for 51.
    """
    return max(MIN_SEEDS, 2 + math.floor(math.log2(family / ALPHA)))


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
    both = ~(np.isnan(x) | np.isnan(y))
    swaps = max(FIRST_SWAPS, 2 ** math.ceil(math.log2(SWAPS_A_TEST * max(family, 1))))
    p = np.full(x.shape[:-1], np.nan)
    for g in np.ndindex(p.shape):
        if both[g].sum() >= MIN_SEEDS:
            p[g] = _largest_p(x[g][both[g]], y[g][both[g]], swaps)
    return p


def _largest_p(x: Floats, y: Floats, swaps: int) -> float:
    """`swap_spread_p` of one test: with few swaps first, and with all of them where those leave it open."""
    top = max(np.abs(x).max(), np.abs(y).max()) or 1.0
    x, y = x / top, y / top
    p = 1.0
    for most in dict.fromkeys((FIRST_SWAPS, swaps)):
        signs = _swaps(len(x), most)
        p = _centred_p(x, y, signs)
        if p <= ALPHA:
            p = max(p, _shifted_p(x, y, signs))
        if p > ALPHA:
            break
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


def _centred_p(x: Floats, y: Floats, signs: Floats) -> float:
    """Share of swaps [W, n] with a difference in squares about the medians as large as the observed one."""
    gaps = (x - np.median(x)) ** 2 - (y - np.median(y)) ** 2
    found = np.abs(signs @ gaps)
    return _share(found >= found[0] * (1 - ROUNDING))


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
        largest = max(largest, _share(apart * total[0] >= apart[0] * total * (1 - ROUNDING)))
        if largest > ALPHA:
            break
    return largest


def _share(as_large: Bools) -> float:
    return float(as_large.mean())
