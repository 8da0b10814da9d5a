"""The paper's claims as data, each judged per algorithm and beta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import number
from alignfirst.stats.intervals import (
    ALPHA,
    MIN_SEEDS,
    Floats,
    PairedTest,
    difference,
    holm,
    paired_t,
    pitman_morgan,
    without_spread,
)
from alignfirst.stats.paired import A_K, K_A, Match, constant_note, join, match_final, seed_notes
from alignfirst.stats.swaps import seeds_needed, swap_spread_p

Verdict = Literal["holds", "reversed", "undecided", "insufficient"]


@dataclass(frozen=True)
class Claim:
    """A claim about align-distil (A-K) against distil-align (K-A), both at their last stage, paired by seed."""

    id: str
    statement: str
    metric: str
    direction: Literal[1, -1]  # 1: A-K has more of it, -1: less
    scale: Literal["difference", "ratio"]  # mean of A-K minus K-A, or sd over seeds of A-K over that of K-A
    small: float  # an effect below this (difference, or |ratio - 1|) is called practically small in the note


CLAIMS: tuple[Claim, ...] = (
    Claim("higher-reward", "Aligning first ends with higher reward", "reward", 1, "difference", 0.01),
    Claim(
        "higher-target-precision",
        "Aligning first ends with higher precision on the target",
        "target_precision",
        1,
        "difference",
        0.05,
    ),
    Claim(
        "higher-overall-precision",
        "Aligning first ends with higher overall precision",
        "overall_precision",
        1,
        "difference",
        0.05,
    ),
    Claim(
        "lower-spread-over-seeds",
        "Aligning first varies less from seed to seed in mean reward",
        "reward",
        -1,
        "ratio",
        0.05,
    ),
    Claim(
        "lower-spread-over-samples",
        "Aligning first ends with a lower standard deviation of reward over the model's outputs",
        "reward_sd",
        -1,
        "difference",
        0.01,
    ),
)

TESTS: dict[str, Callable[[Floats, Floats], PairedTest]] = {"difference": paired_t, "ratio": pitman_morgan}
NO_EFFECT = {"difference": 0.0, "ratio": 1.0}
NOT_CONFIRMED = "p supposes normal seeds; the test that does not (p_swap) decides, and finds no clear difference"


def claims(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every claim judged for every (varied..., algorithm, beta), in the order of `CLAIMS`.

    `p_holm` is the two-sided p that decides, corrected over all tests of the same claim in the study (`family` of
    them): `p` of the paired t test for a difference, `p_swap` for a ratio of spreads, where `p` is that of
    Pitman-Morgan, which gives the interval but errs over bimodal seeds. holds: p_holm < 0.05 and the sign is as
    claimed. reversed: p_holm < 0.05 with the other sign. undecided: neither. insufficient: fewer than 5 paired seeds,
    or too few for any `p_swap` to fall below 0.05 after correction; the note says how many are needed.
    """
    columns = dict.fromkeys([*(c.metric for c in CLAIMS), "target_mass"])
    matched = match_final(rows, varied, A_K, K_A, tuple(columns))
    if matched is None:
        return []
    return [verdict for claim in CLAIMS for verdict in _judge(claim, matched)]


def _judge(claim: Claim, matched: Match) -> list[dict[str, Any]]:
    x, y = matched.left[claim.metric], matched.right[claim.metric]
    test = TESTS[claim.scale](x, y)
    by_swaps = claim.scale == "ratio"
    p_swap = spread_p(test, x, y) if by_swaps else np.full(test.p.shape, np.nan)
    p_holm = holm(p_swap if by_swaps else test.p)
    p_normal = holm(test.p)
    family = int(np.isfinite(test.p).sum())
    lost = matched.lost(test.n)
    result = []
    for g, key in enumerate(matched.keys):
        n = int(test.n[g])
        effect = float(test.estimate[g]) - NO_EFFECT[claim.scale]
        verdict = judge(n, effect * claim.direction, float(p_holm[g]))
        notes = seed_notes(n, int(lost[g])) + _degenerate_notes(claim, test, x, y, g)
        if by_swaps and verdict == "undecided" and not test.degenerate[g]:
            if n < seeds_needed(family):
                verdict = "insufficient"
                notes.append(_needs_seeds(n, family))
            elif p_normal[g] < ALPHA:
                notes.append(NOT_CONFIRMED)
        if verdict in ("holds", "reversed"):
            notes += _size_notes(claim, effect) + _failure_notes(claim, verdict, matched, g)
        result.append(
            {
                **key,
                "claim": claim.id,
                "statement": claim.statement,
                "metric": claim.metric,
                "scale": claim.scale,
                "direction": claim.direction,
                "n": n,
                "lost": int(lost[g]),
                "estimate": number(test.estimate[g]),
                "low": number(test.low[g]),
                "high": number(test.high[g]),
                "p": number(test.p[g]),
                "p_holm": number(p_holm[g]),
                "p_swap": number(p_swap[g]),
                "family": family,
                "verdict": verdict,
                "note": join(notes),
            }
        )
    return result


def spread_p(test: PairedTest, x: Floats, y: Floats) -> Floats:
    """The uncorrected p that decides on spread in G settings [G, S].

    Where Pitman-Morgan's `test` is undefined this is its p: NaN, or 1 where both sides vary in exactly the same way.
    """
    by_swaps = swap_spread_p(x, y, family=int(np.isfinite(test.p).sum()))
    return np.where(test.degenerate, test.p, by_swaps)


def _needs_seeds(n: int, family: int) -> str:
    tests = "one test" if family == 1 else f"{family} tests"
    return f"needs {seeds_needed(family)} seeds: {n} cannot bring p_swap, corrected for {tests}, below {ALPHA:g}"


def judge(n: int, signed_effect: float, p_holm: float) -> Verdict:
    """The verdict rule. `signed_effect` > 0 is as claimed; a NaN p (test undefined) decides nothing."""
    if n < MIN_SEEDS:
        return "insufficient"
    if not p_holm < ALPHA:
        return "undecided"
    if signed_effect > 0:
        return "holds"
    return "reversed" if signed_effect < 0 else "undecided"


def _degenerate_notes(claim: Claim, test: PairedTest, x: Floats, y: Floats, g: int) -> list[str]:
    if not test.degenerate[g]:
        return []
    if claim.scale == "difference":
        return constant_note(test, g)
    if test.p[g] == 1:
        return ["both recipes vary in exactly the same way over seeds"]
    both = ~np.isnan(difference(x[g], y[g]))
    flat = [recipe for recipe, side in ((A_K, x), (K_A, y)) if without_spread(side[g][both])]
    if flat:
        return [f"no spread at all over seeds in {' and '.join(flat)}: the test is undefined"]
    return ["the two recipes are perfectly correlated over seeds: the test is undefined"]


def _size_notes(claim: Claim, effect: float) -> list[str]:
    return [f"statistically clear, but smaller than {claim.small:g}"] if abs(effect) < claim.small else []


def _failure_notes(claim: Claim, verdict: Verdict, matched: Match, g: int) -> list[str]:
    """A recipe that fails in every seed varies little; that is no merit."""
    if claim.direction != -1:
        return []
    calm, side = (A_K, matched.left) if verdict == "holds" else (K_A, matched.right)
    both = ~np.isnan(difference(matched.left[claim.metric][g], matched.right[claim.metric][g]))
    mass = side["target_mass"][g][both]
    if not np.all(mass <= 0.5):
        return []
    return [f"{calm} varies less, but ends with target mass at or below 1/2 in all {len(mass)} seeds"]
