"""Preference rows under the reference and a teacher: does it tell good from bad, what has distilling cost, where?"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from alignfirst.auditing.constants import COVERAGE_N
from alignfirst.auditing.share_intervals import Bools, Floats, Ints, Number, clustered_mean, clustered_share
from alignfirst.theory.coverage import coverage_profile as weighted_profile

WORST = 20  # rows that are named


@dataclass(frozen=True)
class Responses:
    """One response a row: [R]. NaN, or -1 for `rarest_at`, where something is not known.

    `entropy`: mean surprisal per token of the reference's own samples on that prompt. `rarest`: the smallest
    log-probability of a token, `rarest_at` which one it is.
    """

    logp_reference: Floats
    logp_teacher: Floats
    tokens: Floats
    rarest: Floats
    rarest_at: Ints

    def per_token(self, values: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.tokens > 0, values / self.tokens, np.nan)

    @property
    def cost(self) -> Floats:
        """log q - log p: what the reference lost (below 0) or gained against the teacher."""
        return self.logp_reference - self.logp_teacher


@dataclass(frozen=True)
class PairRows:
    """Chosen and rejected responses side by side. `line` [R] is where each row came from, `entropy` [R] as above."""

    line: Ints
    prompt: Ints
    chosen: Responses
    rejected: Responses
    entropy: Floats

    def __len__(self) -> int:
        return len(self.line)


def row_findings(rows: PairRows) -> dict[str, Any]:
    """Everything that preferences alone tell, with intervals over prompts. Nothing here gates anything."""
    w, lost = rows.chosen, rows.rejected
    found: dict[str, Any] = {
        "rows": len(rows),
        "discrimination": discrimination(w.logp_reference, lost.logp_reference, rows.prompt).plain(),
        "discrimination_per_token": _per_token_discrimination(rows).plain(),
        "discrimination_teacher": discrimination(w.logp_teacher, lost.logp_teacher, rows.prompt).plain(),
        "margin": _mean(w.logp_reference - lost.logp_reference, rows.prompt).plain(),
        "typicality": _mean(typicality(rows), rows.prompt).plain(),
        "rarest_step_chosen": _mean(w.rarest, rows.prompt).plain(),
    }
    for name, side in (("chosen", w), ("rejected", lost)):
        found[f"cost_{name}"] = _mean(side.cost, rows.prompt).plain()
        found[f"cost_per_token_{name}"] = _mean(side.per_token(side.cost), rows.prompt).plain()
    found["worst"] = worst(rows)
    return found


def discrimination(logp_w: Floats, logp_l: Floats, prompt: Ints) -> Number:
    """Share of rows whose chosen response is the likelier one; a tie counts half."""
    known = ~np.isnan(logp_w + logp_l)
    return clustered_share((_sign(logp_w - logp_l)[known] + 1) / 2, prompt[known], "rows with both log-probabilities")


def _per_token_discrimination(rows: PairRows) -> Number:
    sides = [side.per_token(side.logp_reference) for side in (rows.chosen, rows.rejected)]
    return discrimination(sides[0], sides[1], rows.prompt)


def _sign(x: Floats) -> Floats:
    return np.sign(x)


def typicality(rows: PairRows) -> Floats:
    """Surprisal per token of the chosen response less that of the reference's own samples: 0 is what q would say."""
    return -rows.chosen.per_token(rows.chosen.logp_reference) - rows.entropy


def _mean(values: Floats, prompt: Ints) -> Number:
    known = ~np.isnan(values)
    return clustered_mean(values[known], prompt[known], "rows that say")


def worst(rows: PairRows, most: int = WORST) -> list[dict[str, Any]]:
    """The rows on which the reference is furthest behind the teacher on the chosen response, per token where lengths
    are known; without a teacher, those that it finds least likely per token."""
    w = rows.chosen
    score = w.per_token(w.cost)
    for other in (w.cost, w.per_token(w.logp_reference), w.logp_reference):
        score = score if not np.isnan(score).all() else other
    order = np.argsort(np.where(np.isnan(score), np.inf, score), kind="stable")[:most]
    return _plain_rows(rows, order[~np.isnan(score[order])])


def every_row(rows: PairRows) -> list[dict[str, Any]]:
    """All rows, in the order of the file."""
    return _plain_rows(rows, np.arange(len(rows)))


def _plain_rows(rows: PairRows, which: Ints) -> list[dict[str, Any]]:
    """The numbers of some rows, None where one is unknown."""
    w, lost = rows.chosen, rows.rejected
    numbers = {
        "logp_chosen": w.logp_reference,
        "logp_rejected": lost.logp_reference,
        "margin": w.logp_reference - lost.logp_reference,
        "cost_chosen": w.cost,
        "cost_rejected": lost.cost,
        "cost_per_token_chosen": w.per_token(w.cost),
        "cost_per_token_rejected": lost.per_token(lost.cost),
        "typicality": typicality(rows),
        "rarest_step": w.rarest,
    }
    columns: dict[str, list[Any]] = {"line": rows.line[which].tolist()}
    columns |= {name: [x if isfinite(x) else None for x in v[which].tolist()] for name, v in numbers.items()}
    columns["rarest_at"] = [at if at >= 0 else None for at in w.rarest_at[which].tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def coverage(logp_teacher: Floats, logp_reference: Floats, prompt: Ints, what: str) -> list[dict[str, Any]]:
    """Coverage profile: share of the teacher's (or target) responses with log p - log q <= log N, over N.

    In words: a response that p gives once, q gives at least once in N times as many draws.
    """
    known = ~np.isnan(logp_teacher + logp_reference)
    p, q = logp_teacher[known], logp_reference[known]
    shares = weighted_profile(p, q, np.ones(len(p)), COVERAGE_N) if len(p) else np.full(len(COVERAGE_N), np.nan)
    profile = []
    for n, share in zip(COVERAGE_N, shares, strict=True):
        within: Bools = p <= q + np.log(n)
        number = clustered_share(within, prompt[known], what)
        assert number.value is None or abs(number.value - share) < 1e-9
        profile.append({"n": n, **number.plain()})
    return profile
