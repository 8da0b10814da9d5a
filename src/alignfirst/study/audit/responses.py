"""Responses of language models as an audit takes them: which of them count, and the table that comes of their scores.

Arrays and token ids in, a table out: who draws and scores is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from alignfirst.auditing.logprob_table import Table, build
from alignfirst.auditing.share_intervals import Floats
from alignfirst.errors import InputError

Ids = Sequence[int]
Decode = Callable[[Ids], str]  # token ids -> their text, without special tokens
Reward = Callable[[list[str], list[str]], Floats]  # texts of prompts and responses -> rewards


class Response(NamedTuple):
    """One response that becomes a row of the table. `source` says who drew a sample: reference or teacher."""

    line: int
    kind: str
    source: str | None
    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def row(self) -> tuple[int, str]:
        """What stands or falls together: both answers of a pair."""
        return self.line, "pair" if self.kind in ("chosen", "rejected") else self.kind


@dataclass(frozen=True)
class ScoredResponses:
    """The table, the responses behind its rows, and per response the log-probability of every token under reference
    and teacher."""

    table: Table
    responses: Sequence[Response]
    token_logp: Sequence[tuple[Floats, Floats | None]]


def fitting(responses: Sequence[Response], limit: int | None, notes: list[str]) -> list[Response]:
    """Those that `limit` positions hold; a pair goes as a whole, and nothing is cut. What was left out is noted.

    Raises InputError where none of several is left.
    """
    empty = {r.row for r in responses if not r.response}
    long = {r.row for r in responses if limit is not None and len(r.prompt) + len(r.response) > limit}
    if long:
        notes.append(f"{len(long)} rows are longer than the {limit} positions of the model and were left out")
    if lost := empty - long:
        notes.append(f"{len(lost)} rows have an answer of no tokens and were left out")
    kept = [r for r in responses if r.row not in empty | long]
    if responses and not kept:
        raise InputError("there must be a response to score", "; ".join(notes), "Give --pairs or --prompts.")
    return kept


def scored_responses(
    responses: Sequence[Response],
    scores: Sequence[Sequence[Floats]],
    reward: Reward | None,
    decode: Decode,
) -> ScoredResponses:
    """The table of responses [N]. `scores`: of the reference and, where there is one, of the teacher, for every
    response the log-probabilities of its tokens."""
    prompts: dict[tuple[int, ...], int] = {}
    texts = [decode(r.response) for r in responses]
    columns: dict[str, list[Any]] = {
        "kind": [r.kind for r in responses],
        "source": [r.source for r in responses],
        "prompt_id": [prompts.setdefault(r.prompt, len(prompts)) for r in responses],
        "pair_id": [r.line for r in responses],
        "tokens": [len(r.response) for r in responses],
        "text": texts,
        "rarest_logp": [float(x.min()) for x in scores[0]],
        "rarest_at": [int(x.argmin()) for x in scores[0]],
    }
    for name, values in zip(("logp_reference", "logp_teacher"), scores, strict=False):
        columns[name] = [min(float(x.sum()), 0.0) for x in values]
    if reward is not None:
        columns["reward"] = [float(x) for x in reward([decode(r.prompt) for r in responses], texts)]
    teacher = scores[1] if len(scores) > 1 else [None] * len(responses)
    table = build(columns, [r.line for r in responses])
    return ScoredResponses(table, responses, list(zip(scores[0], teacher, strict=True)))
