"""From a table of responses to what the audit works on: draws, preferred rewards, preference rows, a target."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from alignfirst.auditing.constants import TARGET_SHARE
from alignfirst.auditing.logprob_table import Table
from alignfirst.auditing.pooled_draws import Draws, Sample, gather
from alignfirst.auditing.preference_rows import PairRows, Responses
from alignfirst.auditing.share_intervals import Bools, Floats, Ints
from alignfirst.errors import InputError

_RULE = re.compile(r"\s*R\s*(>=|>|<=|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Target:
    """T by reward: {R >= x} and its like. `origin` says where it came from, for a person."""

    sign: str
    threshold: float
    origin: str = "named"

    @classmethod
    def parse(cls, text: str) -> Target:
        """From 'R >= 0.5'. Raises InputError."""
        match = _RULE.fullmatch(text)
        if match is None or not math.isfinite(float(match[2])):
            raise InputError("a target must be a rule on the reward", text, "Write for example 'R >= 0.5'.")
        return cls(match[1], float(match[2]))

    def holds(self, reward: Floats) -> Bools:
        compare = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}[self.sign]
        return np.asarray(compare(reward, self.threshold))

    def __str__(self) -> str:
        return f"R {self.sign} {self.threshold:g}"


@dataclass(frozen=True)
class Inputs:
    """What a table gives. `draws` is None without rewards; `covered` are the responses that coverage is measured on."""

    draws: Draws | None
    teacher: Sample | None  # the teacher's own draws
    pairs: PairRows | None
    covered: tuple[Floats, Floats, Ints] | None  # log p, log q, prompt
    covered_what: str
    target: str | None
    notes: tuple[str, ...]


def inputs_of(table: Table, target: Target | None = None) -> Inputs:
    """Raises InputError where rows contradict each other or lack what others have."""
    notes = list(table.notes)
    q, p = table.of("sample", "reference"), table.of("sample", "teacher")
    both = np.concatenate([q, p])
    rewarded = _all_or_none("reward", ~np.isnan(table.reward[both]), table.line[both])
    in_target, name = _target(table, target, both) if rewarded else (None, None)
    preferred = _preferred(table)
    draws = teacher = None
    if rewarded and len(q):
        reference = _sample(table, q, None if in_target is None else in_target[: len(q)])
        teacher = _sample(table, p, None if in_target is None else in_target[len(q) :]) if len(p) else None
        if teacher is not None and np.isnan(table.logp_teacher[both]).any():
            line = table.line[both][np.isnan(table.logp_teacher[both])][0]
            cure = "Score all samples under both models, or leave the teacher's samples out."
            raise InputError("pooling needs logp_teacher in every sample", f"none in line {line}", cure)
        draws = gather(reference, teacher, preferred)
    elif len(p) and rewarded:
        raise InputError("an audit needs samples of the reference", "the teacher's alone", "Draw from the reference.")
    return Inputs(draws, teacher, pair_rows(table), *_covered(table, p, in_target, len(q)), name, tuple(notes))


def _all_or_none(what: str, there: Bools, line: Ints) -> bool:
    if not there.any():
        return False
    if not there.all():
        cure = "A sample without it cannot simply be left out: that would bias the audit."
        raise InputError(f"either every sample has {what} or none", f"none in line {line[~there][0]}", cure)
    return True


def _target(table: Table, target: Target | None, rows: Ints) -> tuple[Bools | None, str | None]:
    """Which samples are in T: by the named rule, by the column, or by a threshold that target examples pass."""
    if target is not None:
        return target.holds(table.reward[rows]), f"{target} ({target.origin})"
    flags = table.in_target[rows]
    if _all_or_none("in_target", flags >= 0, table.line[rows]):
        return flags == 1, "the column in_target"
    examples = table.reward[table.of("target")]
    examples = examples[~np.isnan(examples)]
    if len(examples):
        origin = f"passed by {1 - TARGET_SHARE:.0%} of {len(examples)} target examples"
        found = Target(">=", float(np.quantile(examples, TARGET_SHARE)), origin)
        return found.holds(table.reward[rows]), f"{found} ({origin})"
    return None, None


def _preferred(table: Table) -> Floats | None:
    """Rewards of target examples; where there are none, of chosen responses."""
    for kind in ("target", "chosen"):
        rewards = table.reward[table.of(kind)]
        if (known := ~np.isnan(rewards)).any():
            return rewards[known]
    return None


def _sample(table: Table, rows: Ints, in_target: Bools | None) -> Sample:
    logp = table.logp_teacher[rows]
    return Sample.of(
        table.reward[rows],
        in_target,
        logp_reference=table.logp_reference[rows],
        logp_teacher=None if np.isnan(logp).any() else logp,
        prompt=table.prompt[rows],
    )


def _covered(
    table: Table, p: Ints, in_target: Bools | None, first: int
) -> tuple[tuple[Floats, Floats, Ints] | None, str]:
    """Responses of p_target, or what stands in for it: target examples, the teacher's hits, its draws, chosen ones."""
    rows, what = table.of("target"), "target examples"
    if not len(rows) and in_target is not None and in_target[first:].any():
        rows, what = p[in_target[first:]], "the teacher's draws in the target"
    if not len(rows) and len(p):
        rows, what = p, "the teacher's draws"
    if not len(rows):
        rows, what = table.of("chosen"), "chosen responses"
    known = rows[~np.isnan(table.logp_teacher[rows])]
    if not len(known):
        return None, "log-probabilities of the teacher are missing"
    return (table.logp_teacher[known], table.logp_reference[known], table.prompt[known]), what


def pair_rows(table: Table) -> PairRows | None:
    """Chosen and rejected rows joined by pair_id, None where there are none. Raises InputError for one alone."""
    w, lost = table.of("chosen"), table.of("rejected")
    if not len(w) and not len(lost):
        return None
    partner = {int(table.pair[i]): int(i) for i in lost}
    ids = [int(table.pair[i]) for i in w]
    for rows, name in ((w, "chosen"), (lost, "rejected")):
        codes, counts = np.unique(table.pair[rows], return_counts=True)
        if len(codes) and counts.max() > 1:
            line = table.line[rows][table.pair[rows] == codes[counts.argmax()]][1]
            cure = "Give every pair its own pair_id."
            raise InputError(f"a pair has one {name} response", f"a second one in line {line}", cure)
    alone = np.concatenate(
        [w[~np.isin(table.pair[w], table.pair[lost])], lost[~np.isin(table.pair[lost], table.pair[w])]]
    )
    if len(alone):
        cure = "Give both rows of a pair the same pair_id."
        raise InputError("chosen and rejected come in pairs", f"line {table.line[alone[0]]} alone", cure)
    matched = np.array([partner[i] for i in ids], np.int64)
    return PairRows(table.line[w], table.prompt[w], _side(table, w), _side(table, matched), _entropy(table, w))


def _side(table: Table, rows: Ints) -> Responses:
    return Responses(
        table.logp_reference[rows],
        table.logp_teacher[rows],
        table.tokens[rows],
        table.rarest[rows],
        table.rarest_at[rows],
    )


def _entropy(table: Table, rows: Ints) -> Floats:
    """Surprisal per token of the reference's own samples on the prompt of each row, NaN where there are none.

    Summed surprisal over summed tokens: a mean of ratios would count short samples too much.
    """
    q = table.of("sample", "reference")
    q = q[table.tokens[q] > 0]
    prompts = len(table.prompt_names)
    surprisal = np.bincount(table.prompt[q], -table.logp_reference[q], prompts)
    tokens = np.bincount(table.prompt[q], table.tokens[q], prompts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((surprisal / tokens)[table.prompt[rows]])
