"""The window in beta of the low-recall trap: observed, and foretold by theory with no training.

The trap is there when alignment against the student leaves target mass at or below one half although alignment
against the high-recall reference brings it above. In theory that is beta_c(student) <= beta < beta_c(sft).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import Identity, identity, mean_of, number
from alignfirst.stats.intervals import Bools, Floats, share_interval
from alignfirst.stats.paired import A_K, K_A, Match, join, match

COLUMNS = ("target_mass", "exact_target_mass", "beta_c")
Kinds = dict[tuple[Identity, int], str | None]


def windows(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One dict per (varied..., algorithm), from the align stages of align-distil and distil-align paired by seed.

    `betas` has the share of seeds trapped at each beta, `observed` the betas where it is more than half of them,
    `predicted` the mean over seeds of the exact thresholds, `by_seed` the exact window of each seed: `kind` is window,
    open (sft has half of the mass by itself, so there is no upper end), none (no beta traps the student alone) or
    unknown. Empty where the study does not have both recipes; algorithms without a beta have no window.
    """
    names = (*varied, "algorithm", "beta")
    aligned = [row for row in rows if row["stage"] == "align" and row["beta"] is not None]
    left, right = ([row for row in aligned if row["recipe"] == recipe] for recipe in (A_K, K_A))
    if not left or not right:
        return []
    matched = match(left, right, names, COLUMNS)
    kinds: Kinds = {(identity(row, names), row["seed"]): row.get("trap") for row in right}
    groups: dict[Identity, list[int]] = {}
    for g, key in enumerate(matched.keys):
        groups.setdefault(identity(key, names[:-1]), []).append(g)
    return [_window(matched, at, names, kinds) for at in groups.values()]


def trapped(student: Floats, sft: Floats) -> tuple[Bools, Bools]:
    """Which pairs of target masses show the trap, and which pairs are there at all."""
    caught: Bools = (student <= 0.5) & (sft > 0.5)
    return caught, ~(np.isnan(student) | np.isnan(sft))


def _window(matched: Match, at: list[int], names: tuple[str, ...], kinds: Kinds) -> dict[str, Any]:
    at = sorted(at, key=lambda g: float(matched.keys[g]["beta"]))
    betas = [_at_beta(matched, g, names, kinds) for g in at]
    observed = [b["beta"] for b in betas if b["share"] is not None and b["share"] > 0.5]
    exact = _exact(matched, at)
    both = [w for w in exact if w["low"] is not None and w["high"] is not None]
    notes = []
    if len(both) < len(exact):
        notes.append(
            f"the predicted window is a mean over {len(both)} of {len(exact)} seeds: the others lack a finite end"
        )
    if lost := sum(b["lost"] for b in betas):
        notes.append(f"{lost} pairs of seed and beta are missing (not run, failed or null in one of the recipes)")
    return {
        **{n: matched.keys[at[0]][n] for n in names[:-1]},
        "seeds": [w["seed"] for w in exact],
        "betas": betas,
        "observed": {
            "betas": observed,
            "low": min(observed, default=None),
            "high": max(observed, default=None),
        },
        "predicted": {
            "low": mean_of([w["low"] for w in both]),
            "high": mean_of([w["high"] for w in both]),
            "n": len(both),
            "kinds": dict(sorted(Counter(w["kind"] for w in exact).items())),
        },
        "by_seed": exact,
        "note": join(notes),
    }


def _at_beta(matched: Match, g: int, names: tuple[str, ...], kinds: Kinds) -> dict[str, Any]:
    student, sft = matched.right["target_mass"][g], matched.left["target_mass"][g]
    exact_student, exact_sft = matched.right["exact_target_mass"][g], matched.left["exact_target_mass"][g]
    caught, there = trapped(student, sft)
    foretold, known = trapped(exact_student, exact_sft)
    n, theory_n = int(there.sum()), int(known.sum())
    low, high = share_interval(caught.sum(), n)
    seeds = [s for s, c in zip(matched.seeds, caught, strict=True) if c]
    key = identity(matched.keys[g], names)
    return {
        "beta": matched.keys[g]["beta"],
        "n": n,
        "lost": int(matched.seen[g].sum()) - n,
        "share": len(seeds) / n if n else None,
        "low": number(low),
        "high": number(high),
        "trapped_seeds": seeds,
        "kinds": dict(sorted(Counter(kinds[key, s] or "unnamed" for s in seeds).items())),
        "theory_n": theory_n,
        "theory_share": int(foretold.sum()) / theory_n if theory_n else None,
        "student_mass": mean_of(student),
        "sft_mass": mean_of(sft),
        "exact_student_mass": mean_of(exact_student),
        "exact_sft_mass": mean_of(exact_sft),
    }


def _exact(matched: Match, at: list[int]) -> list[dict[str, Any]]:
    """The window of each seed: beta_c of the student it aligned in distil-align, and of sft."""
    seen: Bools = np.asarray(matched.seen[at].any(0))
    low, high = (_threshold(side, at) for side in (matched.right, matched.left))
    return [
        {"seed": s, "low": number(low[i]), "high": number(high[i]), "kind": _kind(float(low[i]), float(high[i]))}
        for i, s in enumerate(matched.seeds)
        if seen[i]
    ]


def _threshold(side: dict[str, Floats], at: list[int]) -> Floats:
    """beta_c [S]: it does not depend on beta, so the first known value serves.

    A null one is infinite where the exact optimum is above one half at every beta, and unknown (NaN) elsewhere.
    """
    beta_c, mass = side["beta_c"][at], side["exact_target_mass"][at]  # [B, S]
    first: Floats = beta_c[(~np.isnan(beta_c)).argmax(0), np.arange(beta_c.shape[1])]
    known = ~np.isnan(mass)
    endless = np.isnan(first) & known.any(0) & ((mass > 0.5) | ~known).all(0)
    return np.where(endless, np.inf, first)


def _kind(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return "unknown"
    if low >= high:
        return "none"
    return "open" if high == np.inf else "window"
