"""One recipe against another, paired by seed: both start from the same SFT model of that seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import METRICS, Identity, final_rows, identity, number, tabulate
from alignfirst.stats.intervals import MIN_SEEDS, Bools, Floats, Ints, PairedTest, difference, moments, paired_t

A_K, K_A = "align-distil", "distil-align"
LOWER_IS_BETTER = frozenset({"reward_sd"})


@dataclass(frozen=True)
class Match:
    """Two sides of a comparison, put beside each other by group and seed."""

    keys: list[Row]  # G
    seeds: list[int]  # S
    left: dict[str, Floats]  # column -> [G, S]
    right: dict[str, Floats]
    seen: Bools  # [G, S] there is a row on at least one side

    def lost(self, n: Ints) -> Ints:
        """[G] seeds that make no pair: not run, not ok or null on one of the sides."""
        lost: Ints = self.seen.sum(-1) - n
        return lost


def match(left: Sequence[Row], right: Sequence[Row], names: Sequence[str], columns: Sequence[str]) -> Match:
    """Pair the rows of two recipes by the key columns `names` and by seed."""
    sides = [tabulate(rows, names, columns) for rows in (left, right)]
    keys: dict[Identity, Row] = {}
    for side in sides:
        for key in side.keys:
            keys.setdefault(identity(key, names), key)
    seeds = sorted({s for side in sides for s in side.seeds})
    place = {k: g for g, k in enumerate(keys)}
    shape = (len(keys), len(seeds))
    seen = np.zeros(shape, bool)
    values = []
    for side in sides:
        groups = np.array([place[identity(key, names)] for key in side.keys], np.intp)
        at = np.ix_(groups, np.searchsorted(seeds, side.seeds))
        seen[at] |= side.seen
        full = np.full((*shape, len(columns)), np.nan)
        full[at] = side.values
        values.append({c: full[:, :, m] for m, c in enumerate(columns)})
    return Match(list(keys.values()), seeds, values[0], values[1], seen)


def match_final(
    rows: Sequence[Row], varied: Sequence[str], recipe: str, against: str = K_A, columns: Sequence[str] = METRICS
) -> Match | None:
    """The last stages of two recipes; None where the study does not have both."""
    left, right = final_rows(rows, recipe), final_rows(rows, against)
    if not left or not right:
        return None
    return match(left, right, (*varied, "algorithm", "beta"), columns)


def pairs(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """align-distil minus distil-align at the last stage, one dict per (varied..., algorithm, beta, metric).

    `share_won` is the share of seeds in which align-distil is strictly better (for reward_sd: lower), `ties` counts
    equal ones, `lost` the seeds that make no pair.
    """
    matched = match_final(rows, varied, A_K)
    return [] if matched is None else _differences(matched)


def recipes(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every other recipe of two or more stages minus distil-align: as `pairs`, with the `recipe` named first."""
    names = dict.fromkeys(row["recipe"] for row in rows if row["final"] and row["stage_index"] >= 2)
    result = []
    for name in names:
        matched = None if name == K_A else match_final(rows, varied, name)
        if matched is not None:
            result += [{"recipe": name, **d} for d in _differences(matched)]
    return result


def _differences(matched: Match) -> list[dict[str, Any]]:
    by_metric = {m: _of_metric(matched, m) for m in METRICS}
    return [by_metric[m][g] for g in range(len(matched.keys)) for m in METRICS]


def _of_metric(matched: Match, metric: str) -> list[dict[str, Any]]:
    test = paired_t(matched.left[metric], matched.right[metric])
    differences = difference(matched.left[metric], matched.right[metric])
    sd = moments(differences)[2]
    lost = matched.lost(test.n)
    better = differences < 0 if metric in LOWER_IS_BETTER else differences > 0
    result = []
    for g, key in enumerate(matched.keys):
        there = ~np.isnan(differences[g])
        n = int(test.n[g])
        result.append(
            {
                **key,
                "metric": metric,
                "n": n,
                "lost": int(lost[g]),
                "mean": number(test.estimate[g]),
                "sd": number(sd[g]),
                "low": number(test.low[g]),
                "high": number(test.high[g]),
                "share_won": int(better[g].sum()) / n if n else None,
                "ties": int((differences[g] == 0).sum()),
                "differences": differences[g][there].tolist(),
                "seeds": [s for s, t in zip(matched.seeds, there, strict=True) if t],
                "note": join(seed_notes(n, int(lost[g])) + constant_note(test, g)),
            }
        )
    return result


def seed_notes(n: int, lost: int) -> list[str]:
    """What the number of seeds means for the reader."""
    notes = []
    if n < MIN_SEEDS:
        notes.append(f"{n} paired seed{'' if n == 1 else 's'}: no interval is given below {MIN_SEEDS}")
    if lost:
        notes.append(f"{lost} of {n + lost} seeds make no pair (not run, failed or null in one of the recipes)")
    return notes


def constant_note(test: PairedTest, g: int) -> list[str]:
    """Why a paired t test has no interval although there are seeds enough."""
    if not test.degenerate[g]:
        return []
    if test.p[g] == 1:
        return ["no difference in any seed"]
    return ["the difference is the same in every seed, so t is undefined: no interval, p from the sign test"]


def join(notes: Sequence[str]) -> str | None:
    return "; ".join(notes) or None
