"""Spread of reward at the same mean reward: a model that earns little can hardly vary, so plain spreads mislead.

Within a seed, the last stages of a recipe over its betas are points (mean reward, sd of reward over outputs). Between
two of them stand their mixtures, models that answer now with one and now with the other: mean and mean square of their
reward are straight lines, so the sd is known exactly. (Straight lines of the sd itself would cut below the arc of
two-outcome rewards, most where points are far apart: a spurious difference.) The two recipes are compared over the
rewards that both reach; where they share none, nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import Identity, identity, number, numbers
from alignfirst.stats.intervals import Floats, as_samples, moments, paired_t
from alignfirst.stats.paired import A_K, K_A, Match, constant_note, join, match_final, seed_notes


def matched_spread(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """align-distil minus distil-align in reward_sd at equal mean reward, one dict per (varied..., algorithm).

    A seed's difference is the mean over the interval of rewards that both recipes reach over their betas; `from_reward`
    and `to_reward` are its ends. `apart` counts the seeds without such an interval, `lost` those with a value missing.
    Empty where the study does not have both recipes; algorithms without a beta are single points and left out.
    """
    aligned = [row for row in rows if row["beta"] is not None]
    found = match_final(aligned, varied, A_K, K_A, ("reward", "reward_sd"))
    if found is None:
        return []
    names = (*varied, "algorithm")
    groups: dict[Identity, list[int]] = {}
    for g, key in enumerate(found.keys):
        groups.setdefault(identity(key, names), []).append(g)
    return [_compared(found, at, names) for at in groups.values()]


AT = 256  # points at which the two arcs are compared


@np.errstate(all="ignore")  # rewards at the edge of floating point: not finite, and null in the end
def at_equal_reward(left: Floats, right: Floats) -> tuple[float, float, float]:
    """Points [B, 2] of (reward, sd) on two sides -> mean difference of sd, and the interval it is over.

    NaN for all three where the sides share no interval.
    """
    a, b = _curve(left), _curve(right)
    low, high = max(a[0, 0], b[0, 0]), min(a[-1, 0], b[-1, 0])
    if not low < high:
        return np.nan, np.nan, np.nan
    at = low + (high - low) * (np.arange(AT) + 0.5) / AT
    return float((_sd(a, at) - _sd(b, at)).mean()), float(low), float(high)


def _sd(curve: Floats, at: Floats) -> Floats:
    """sd of the mixtures of neighbouring points that have the mean rewards `at`."""
    square = np.interp(at, curve[:, 0], curve[:, 1])
    return np.sqrt(np.maximum(square - at * at, 0.0))


def _curve(points: Floats) -> Floats:
    """(mean, mean square) of reward in ascending order of the mean; points of one mean become one."""
    reward, at = np.unique(points[:, 0], return_inverse=True)
    square = points[:, 0] ** 2 + points[:, 1] ** 2
    return np.stack([reward, np.bincount(at, square) / np.bincount(at)], axis=1)


def _compared(found: Match, at: list[int], names: Sequence[str]) -> dict[str, Any]:
    left, right = (np.stack([side["reward"][at], side["reward_sd"][at]], -1) for side in (found.left, found.right))
    whole = ~np.isnan(left).any((0, 2)) & ~np.isnan(right).any((0, 2))  # [S]
    values = np.full((len(found.seeds), 3), np.nan)
    for s in np.flatnonzero(whole):
        values[s] = at_equal_reward(left[:, s], right[:, s])
    values = as_samples(values)
    differences = values[:, 0]
    test = paired_t(differences[None], np.zeros_like(differences)[None])
    there = ~np.isnan(differences)
    n, lost = int(there.sum()), int((found.seen[at].any(0) & ~whole).sum())
    apart = int((whole & ~there).sum())
    notes = seed_notes(n, lost) + constant_note(test, 0)
    if len(at) < 2:
        notes.append("with one beta a recipe is a single point: it takes two to compare over rewards")
    elif apart:
        notes.append(f"in {apart} of {int(whole.sum())} seeds the two recipes reach no common mean reward")
    return {
        **{name: found.keys[at[0]][name] for name in names},
        "betas": sorted(float(found.keys[g]["beta"]) for g in at),
        "n": n,
        "lost": lost,
        "apart": apart,
        "mean": number(test.estimate[0]),
        "sd": number(moments(differences)[2]),
        "low": number(test.low[0]),
        "high": number(test.high[0]),
        "p": number(test.p[0]),
        "differences": numbers(differences[there]),
        "from_reward": numbers(values[there, 1]),
        "to_reward": numbers(values[there, 2]),
        "seeds": [seed for seed, t in zip(found.seeds, there, strict=True) if t],
        "note": join(notes),
    }
