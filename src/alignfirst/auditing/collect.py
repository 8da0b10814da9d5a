"""The seam between the audit and language models: what a model must offer, and the table that comes of it.

Nothing here imports a model library. Work is done in small pieces, each stored under a digest of the model and the
tokens in it, so that an interrupted audit goes on where it stopped and one at another beta computes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from alignfirst.auditing.logprob_table import Table, build
from alignfirst.auditing.share_intervals import Floats
from alignfirst.data.pairs import LoadedRows
from alignfirst.data.rows import TextRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.errors import InputError
from alignfirst.nodes import Artefact
from alignfirst.store import Store

Ids = Sequence[int]
ScoredRow = tuple[Ids, Sequence[Ids]]  # a prompt and its responses
Reward = Callable[[list[str], list[str]], Floats]  # texts of prompts and responses -> rewards
PIECE = 16  # rows scored, or prompts sampled, between two writes
VERSION = 1  # of what is stored


class Model(Protocol):
    """A language model. `identity` digests its weights; `limit` is the number of positions it has."""

    identity: str
    limit: int | None

    def score(self, rows: Sequence[ScoredRow]) -> list[list[Floats]]:
        """log-probability of every token of every response, given its prompt."""
        ...

    def sample(self, prompt: Ids, count: int, new_tokens: int, seed: int) -> list[list[int]]:
        """Responses drawn at temperature 1 with nothing filtered, each with its end token where it drew one."""
        ...


class Job(NamedTuple):
    """A piece of a model's work, plain data: rows to score, or prompts (ids) to sample from with settings."""

    key: str
    kind: Literal["score", "sample"]
    content: Sequence[Any]
    settings: Sequence[int] = ()  # of samples: how many a prompt, new tokens, seed

    @property
    def size(self) -> int:
        """Responses, about: what a job costs goes by them."""
        return len(self.content) * self.settings[0] if self.settings else sum(len(row[1]) for row in self.content)


Ahead = Callable[[Model, Sequence[Job]], None]  # does jobs elsewhere; what it has left undone is done here


class Item(NamedTuple):
    """One response that becomes a row of the table."""

    line: int
    kind: str
    source: str | None
    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def row(self) -> tuple[int, str]:
        """What stands or falls together: both answers of a pair."""
        return self.line, "pair" if self.kind in ("chosen", "rejected") else self.kind


@dataclass
class Collected:
    """The table, the tokens behind every row of it, and what is worth saying."""

    table: Table
    items: list[Item]
    token_logp: list[tuple[Floats, Floats | None]]  # under reference and teacher
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """What to collect. `prompts` are sampled from; those of the pairs where none are given."""

    tokeniser: Tokeniser
    pairs: LoadedRows | None = None
    prompts: Sequence[TextRow] = ()
    targets: Sequence[TextRow] = ()  # examples of what is wanted
    samples: int = 0  # a prompt and model
    new_tokens: int = 256
    seed: int = 0


def collect(
    request: Request,
    reference: Model,
    teacher: Model | None,
    reward: Reward | None,
    decode: Callable[[Ids], str],
    store: Store,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    ahead: Ahead = lambda model, jobs: None,
) -> Collected:
    """Sample, score and reward everything that is asked for. `ahead` is offered jobs that are not stored yet.

    Raises InputError when no response is left.
    """
    notes: list[str] = []
    items = list(_given(request, notes))
    models = [("reference", reference)] + ([("teacher", teacher)] if teacher is not None else [])
    limit = min((m.limit for _, m in models if m.limit is not None), default=None)
    if request.samples:
        prompts = _prompts(request, items)
        for source, model in models:
            items += _drawn(request, prompts, source, model, store, progress, ahead)
    items = _fitting(items, limit, notes)
    if not items:
        raise InputError("there must be a response to score", "; ".join(notes) or "none", "Give --pairs or --prompts.")
    scored = [_scored(items, model, store, progress, source, ahead) for source, model in models]
    rewards = None if reward is None else _rewards(items, reward, decode)
    columns = _columns(items, scored, rewards, decode)
    token_logp = [(q, scored[1][i] if len(scored) > 1 else None) for i, q in enumerate(scored[0])]
    return Collected(build(columns, [item.line for item in items]), items, token_logp, notes)


def _given(request: Request, notes: list[str]) -> Iterator[Item]:
    """Responses of the pairs and target examples, cut as training cuts them."""
    moved = 0
    for row in request.tokeniser.rows(request.pairs.rows if request.pairs is not None else ()):
        moved += row.moved > 0
        for kind, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
            yield Item(row.line, kind, None, tuple(row.prompt), tuple(answer))
    if moved:
        notes.append(
            f"in {moved} pairs a token spans the end of the prompt: their answers begin before it, as in training"
        )
    for row in request.tokeniser.rows(request.targets, answers=1):
        yield Item(row.line, "target", None, tuple(row.prompt), tuple(row.chosen))


def _prompts(request: Request, items: Sequence[Item]) -> list[tuple[int, tuple[int, ...]]]:
    """(line, ids) of distinct prompts."""
    if request.prompts:
        asked = [(row.line, tuple(row.prompt)) for row in request.tokeniser.rows(request.prompts, answers=0)]
    else:
        asked = [(item.line, item.prompt) for item in items]
    first: dict[tuple[int, ...], int] = {}
    for line, ids in asked:
        first.setdefault(ids, line)
    return [(line, ids) for ids, line in first.items()]


def _drawn(
    request: Request,
    prompts: Sequence[tuple[int, tuple[int, ...]]],
    source: str,
    model: Model,
    store: Store,
    progress: Callable[[str, int, int], None],
    ahead: Ahead,
) -> Iterator[Item]:
    settings = [request.samples, request.new_tokens, request.seed]
    pieces = [prompts[a : a + PIECE] for a in range(0, len(prompts), PIECE)]
    jobs = [_job("sample", model, [ids for _, ids in piece], settings) for piece in pieces]
    ahead(model, [job for job in jobs if not store.has(job.key)])
    for n, (piece, job) in enumerate(zip(pieces, jobs, strict=True), 1):
        found = _stored(store, model, job)
        lengths, tokens = found["lengths"].reshape(len(piece), -1), found["tokens"]
        ends = np.cumsum(lengths.ravel())
        responses = iter(np.split(tokens, ends[:-1]))
        for line, ids in piece:
            for _ in range(request.samples):
                yield Item(line, "sample", source, ids, tuple(int(t) for t in next(responses)))
        progress(f"samples of the {source}", min(n * PIECE, len(prompts)), len(prompts))


def work(model: Model, job: Job) -> dict[str, Any]:
    """What a job comes to, as arrays."""
    if job.kind == "score":
        return {"logp": np.concatenate([logp for row in model.score(job.content) for logp in row])}
    # A prompt's draws are its own, whatever stands beside it: its seed comes from its tokens
    count, new_tokens, seed = job.settings
    drawn = [model.sample(ids, count, new_tokens, _seed(seed, ids, model.identity)) for ids in job.content]
    flat = [response for responses in drawn for response in responses]
    return {
        "lengths": np.array([len(r) for r in flat], np.int64),
        "tokens": np.array([t for r in flat for t in r], np.int64),
    }


def _fitting(items: list[Item], limit: int | None, notes: list[str]) -> list[Item]:
    """Responses that the models have positions for; a pair goes as a whole, and nothing is cut."""
    empty = {i.row for i in items if not i.response}
    long = {i.row for i in items if limit is not None and len(i.prompt) + len(i.response) > limit}
    if long:
        notes.append(f"{len(long)} rows are longer than the {limit} positions of the model and were left out")
    if lost := empty - long:
        notes.append(f"{len(lost)} rows have an answer of no tokens and were left out")
    return [i for i in items if i.row not in empty | long]


def _scored(
    items: Sequence[Item],
    model: Model,
    store: Store,
    progress: Callable[[str, int, int], None],
    source: str,
    ahead: Ahead,
) -> list[Floats]:
    """log-probabilities of tokens, one array an item; a prompt is computed once for its responses."""
    rows: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for n, item in enumerate(items):
        rows.setdefault(item.prompt, {}).setdefault(item.response, []).append(n)
    asked = [(prompt, list(responses)) for prompt, responses in rows.items()]
    out: list[Floats] = [np.empty(0)] * len(items)
    jobs = [_job("score", model, asked[a : a + PIECE]) for a in range(0, len(asked), PIECE)]
    ahead(model, [job for job in jobs if not store.has(job.key)])
    for number, job in enumerate(jobs, 1):
        found, at = _stored(store, model, job)["logp"], 0
        for prompt, responses in job.content:
            for response in responses:
                for n in rows[prompt][response]:
                    out[n] = found[at : at + len(response)]
                at += len(response)
        progress(f"scores under the {source}", min(number * PIECE, len(asked)), len(asked))
    return out


def _job(kind: Literal["score", "sample"], model: Model, content: Sequence[Any], settings: Sequence[int] = ()) -> Job:
    return Job(_key(kind, model.identity, settings, content), kind, content, settings)


def _stored(store: Store, model: Model, job: Job) -> Mapping[str, Any]:
    if not store.has(job.key):
        store.put_many([(job.key, Artefact(work(model, job)))])
    return store.get(job.key).arrays


def _key(kind: str, identity: str, settings: Sequence[int], content: Any) -> str:
    text = json.dumps([VERSION, kind, identity, settings, content], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _seed(seed: int, ids: Ids, identity: str) -> int:
    return int(hashlib.sha256(json.dumps([seed, list(ids), identity]).encode()).hexdigest()[:15], 16)


def _rewards(items: Sequence[Item], reward: Reward, decode: Callable[[Ids], str]) -> Floats:
    return reward([decode(item.prompt) for item in items], [decode(item.response) for item in items])


def _columns(
    items: Sequence[Item], scored: Sequence[Sequence[Floats]], rewards: Floats | None, decode: Callable[[Ids], str]
) -> dict[str, list[Any]]:
    names: dict[tuple[int, ...], int] = {}
    columns: dict[str, list[Any]] = {
        "kind": [i.kind for i in items],
        "source": [i.source for i in items],
        "prompt_id": [names.setdefault(i.prompt, len(names)) for i in items],
        "pair_id": [i.line for i in items],
        "tokens": [len(i.response) for i in items],
        "text": [decode(i.response) for i in items],
        "rarest_logp": [float(x.min()) for x in scored[0]],
        "rarest_at": [int(x.argmin()) for x in scored[0]],
    }
    for name, values in zip(("logp_reference", "logp_teacher"), scored, strict=False):
        columns[name] = [min(float(x.sum()), 0.0) for x in values]
    if rewards is not None:
        columns["reward"] = [float(r) for r in rewards]
    return columns
