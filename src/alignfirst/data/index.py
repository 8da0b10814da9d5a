"""Rows as token ids, and the index of a data set: which rows are usable, on which side of the split, how long.

The index is a few numbers a row, made in one pass that keeps no text, so that files much larger than memory can be
used; training reads the rows that it needs at their places again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignfirst.data.pairs import CONTRADICTING, MAX_CELL, REPEATED, Message, Pair, RowReader, Text, Unusable, digest
from alignfirst.data.sources import Source
from alignfirst.data.tokenise import Encoded, Tokeniser
from alignfirst.errors import InputError, StageFailure
from alignfirst.nodes import Artefact, Json

VERSION = 2  # of the index; 2: its metadata hold the source's identity
FIRST_LINES = 5
TOGETHER, MAX_TOGETHER = 256, 1 << 20  # rows, and characters, in one call of the tokenizer
WARN_EVERY = 2_000  # rows between two calls of `progress`
Ids = list[int]


class Row(NamedTuple):
    """One row as token ids; a row of prompts alone has no answers."""

    line: int
    prompt: Ids
    chosen: Ids
    rejected: Ids

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class Rules:
    """What decides which rows are used, and how they are cut into tokens."""

    kind: str  # pairs or prompts
    limit: int | None  # only so many rows are read
    max_length: int
    chat: bool
    held_out: float
    split_seed: int
    vocabulary: int  # tokens that both models have


class Encoder:
    """Cells of a row -> texts -> token ids. Raises Unusable with the reason that is counted."""

    def __init__(self, tokenizer: Any, rules: Rules) -> None:
        self.rules = rules
        self.reader = RowReader(MAX_CELL)
        self.tokeniser = Tokeniser(tokenizer)
        self.special = [t for t in getattr(tokenizer, "all_special_tokens", ()) if len(t) > 1]

    def texts(self, line: int, cells: Mapping[str, Any]) -> Pair:
        """A pair; of prompts alone, one with empty answers."""
        if self.rules.kind == "prompts":
            prompt = self.reader.text(cells, "prompt")
            if not prompt:
                raise Unusable("empty prompt")
            return Pair(line, prompt, "", "")
        pair = self.reader.pair(line, cells)
        for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            if not isinstance(answer, str) and answer[-1].role != "assistant":
                raise Unusable(f"{name} does not end with the assistant")
        return pair

    def ids(self, pair: Pair) -> tuple[Row, int]:
        """Token ids, and how many tokens of the prompt went to the answers."""
        try:
            [found] = self._encoded([pair])
        except InputError as e:
            if "chat template" in e.rule:
                raise
            raise Unusable("a prompt of no tokens") from None
        except (ValueError, TypeError, KeyError) as e:  # a template's own complaint, a strange role
            raise Unusable(f"the tokenizer refuses it ({type(e).__name__})") from None
        except Exception as e:
            if type(e).__module__.startswith("jinja2"):
                raise Unusable("the chat template refuses it") from None
            raise
        return self._usable(pair.line, found)

    def many(self, pairs: Sequence[Pair]) -> list[tuple[Row, int] | Unusable]:
        """The same of each, in one call of the tokenizer unless it refuses one of them."""
        try:
            encoded = self._encoded(pairs)
        except Exception:  # which one and why is found out one by one
            return [_attempt(self.ids, pair) for pair in pairs]
        return [_attempt(self._usable, pair.line, found) for pair, found in zip(pairs, encoded, strict=True)]

    def _encoded(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """Token ids as the tokenizer cuts them; of prompts alone, without answers."""
        if self.rules.kind == "prompts":
            prompts = [_chat(pair.prompt, "user") if self.rules.chat else pair.prompt for pair in pairs]
            found = self.tokeniser.prompts(prompts, [pair.line for pair in pairs])
            return [Encoded(ids, [], [], 0) for ids in found]
        return self.tokeniser.pairs([self._wrapped(pair) for pair in pairs])

    def _usable(self, line: int, found: Encoded) -> tuple[Row, int]:
        if self.rules.kind == "pairs":
            if not (found.chosen and found.rejected):
                raise Unusable("an answer of no tokens")
            if found.chosen == found.rejected:
                raise Unusable("chosen and rejected the same tokens")
        return self._checked(Row(line, found.prompt, found.chosen, found.rejected)), found.moved

    def _checked(self, row: Row) -> Row:
        if len(row.prompt) + max(len(row.chosen), len(row.rejected)) > self.rules.max_length:
            raise Unusable(f"longer than {self.rules.max_length} tokens")
        if max(map(max, (x for x in row[1:] if x))) >= self.rules.vocabulary:
            raise Unusable("a token that the model does not have")
        return row

    def _wrapped(self, pair: Pair) -> Pair:
        if not self.rules.chat or pair.conversational:
            return pair
        prompt, *answers = (
            _chat(text, role)
            for text, role in ((pair.prompt, "user"), (pair.chosen, "assistant"), (pair.rejected, "assistant"))
        )
        return Pair(pair.line, prompt, answers[0], answers[1], pair.confidence)

    def odd(self, pair: Pair) -> list[str]:
        """What is odd about a row that is kept."""
        texts = [t for part in (pair.prompt, pair.chosen, pair.rejected) for t in _contents(part)]
        found = []
        if any("\ufffd" in t for t in texts):
            found.append("the replacement character U+FFFD: text was decoded wrongly before")
        if any("\x00" in t for t in texts):
            found.append("a NUL character")
        if any(s in t for t in texts for s in self.special):
            found.append("a special token of the model written out in text")
        return found


def _attempt(tried: Callable[..., tuple[Row, int]], *arguments: Any) -> tuple[Row, int] | Unusable:
    try:
        return tried(*arguments)
    except Unusable as e:
        return e


def _chat(text: Text, role: str) -> Text:
    return (Message(role, text),) if isinstance(text, str) else text


def _contents(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else [m.content for m in text]


# -- the index --------------------------------------------------------------------------------------------------------


def index_key(source: Source, tokenizer: str, rules: Rules) -> str:
    """Key of the index of a source: its content, the tokenizer's digest, the rules."""
    text = json.dumps([VERSION, source.identity, tokenizer, asdict(rules)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def index(source: Source, encoder: Encoder, progress: Callable[[int], None] = lambda rows: None) -> Artefact:
    """One pass over all rows. Raises InputError where none is left, or nothing on one side of the split.

    arrays: `line`, `position`, `check` (of the row's content), `held`, `lengths` [n, 3] in tokens. meta: rows read,
    dropped and noted, by reason, with the first five lines of each.
    """
    scan, limit = Scan(encoder), encoder.rules.limit
    for placed in source.rows() if limit is None else islice(source.rows(), limit):
        scan.take(placed.line, placed.position, placed.cells, placed.wrong)
        if scan.total % WARN_EVERY == 0:
            progress(scan.total)
    found = scan.result()
    return Artefact(found.arrays, {**found.meta, "identity": source.identity})


class Scan:
    """Rows in, a few numbers of each kept. Texts wait until there are enough of them for one call of the tokenizer."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.reader, self.total, self.conversational = encoder, encoder.reader, 0, 0
        self.waiting: list[tuple[int, Pair]] = []  # where each is in the source
        self.characters = 0
        self.line, self.position = array("q"), array("q")
        self.same, self.pair, self.prompt, self.check = (array("Q") for _ in range(4))
        self.lengths = array("i")

    def take(self, line: int, position: int, cells: Mapping[str, Any] | None, wrong: str | None) -> None:
        self.total += 1
        try:
            if cells is None:
                raise Unusable(wrong or "no row")
            texts = self.encoder.texts(line, cells)
        except Unusable as e:
            self.reader.drop(str(e), line)
            return
        self.waiting.append((position, texts))
        self.characters += sum(len(t) for part in texts[1:4] for t in _contents(part))
        if len(self.waiting) == TOGETHER or self.characters > MAX_TOGETHER:
            self.encode()

    def encode(self) -> None:
        """Make numbers of the texts that wait."""
        found = self.encoder.many([texts for _, texts in self.waiting])
        for (position, texts), row in zip(self.waiting, found, strict=True):
            if isinstance(row, Unusable):
                self.reader.drop(str(row), texts.line)
            else:
                self._keep(position, texts, *row)
        self.waiting, self.characters = [], 0

    def _keep(self, position: int, texts: Pair, row: Row, moved: int) -> None:
        for oddity in self.encoder.odd(texts):
            self.reader.note(oddity, texts.line)
        if moved:
            self.reader.note("a token that spans the end of the prompt: it goes to the answers", texts.line)
        self.conversational += texts.conversational
        self.line.append(texts.line)
        self.position.append(position)
        self.same.append(_number(digest(texts.prompt, texts.chosen, texts.rejected)))
        # The same in either order: a pair that stands both ways round has two of `same` and one of `pair`
        answers = sorted(digest(answer) for answer in (texts.chosen, texts.rejected))
        self.pair.append(_number(hashlib.sha256(digest(texts.prompt) + answers[0] + answers[1]).digest()))
        self.prompt.append(_number(_prompt_digest(texts.prompt, self.encoder.rules.split_seed)))
        self.check.append(row_check(row))
        self.lengths.extend((len(row.prompt), len(row.chosen), len(row.rejected)))

    def result(self) -> Artefact:
        self.encode()
        line, same, pair = _array(self.line, np.int64), _array(self.same, np.uint64), _array(self.pair, np.uint64)
        contradicting = _both_ways(same, pair)
        repeated = _seen_before(same) & ~contradicting
        for which, reason in ((contradicting, CONTRADICTING), (repeated, REPEATED)):
            for n in line[which].tolist():
                self.reader.drop(reason, n)
        kept = ~(contradicting | repeated)
        held = _array(self.prompt, np.uint64)[kept] < np.uint64(self.encoder.rules.held_out * 2.0**64)
        arrays = {
            "line": line[kept],
            "position": _array(self.position, np.int64)[kept],
            "check": _array(self.check, np.uint64)[kept],
            "held": held,
            "lengths": _array(self.lengths, np.int32).reshape(-1, 3)[kept],
        }
        meta: dict[str, Json] = {"kind": self.encoder.rules.kind, "rows": self.total, "kept": int(kept.sum())}
        meta |= {"train": int((~held).sum()), "held_out": int(held.sum()), "conversational": self.conversational}
        for name, counted in (("dropped", self.reader.dropped), ("notes", self.reader.notes)):
            order = sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))
            meta[name] = {reason: {"count": c.count, "lines": c.lines} for reason, c in order}
        return Artefact(arrays, meta)


def _prompt_digest(prompt: Text, split_seed: int) -> bytes:
    """Letter case and spacing do not put a prompt on the other side of the split."""
    texts = [" ".join(text.lower().split()) for text in _contents(prompt)]
    return hashlib.sha256(json.dumps([split_seed, texts]).encode()).digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")


def row_check(row: Row) -> int:
    """A number that tells whether a row is still what it was."""
    ids = np.array([len(row.prompt), len(row.chosen), *row.prompt, *row.chosen, *row.rejected], np.int64)
    return _number(hashlib.sha256(ids.tobytes()).digest())


def _array(values: array[Any], dtype: Any) -> NDArray[Any]:
    return np.frombuffer(values, dtype) if len(values) else np.empty(0, dtype)


def _seen_before(same: NDArray[np.uint64]) -> NDArray[np.bool_]:
    _, first = np.unique(same, return_index=True)
    seen = np.ones(len(same), np.bool_)
    seen[first] = False
    return seen


def _both_ways(same: NDArray[np.uint64], pair: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Rows whose pair stands in the data both ways round."""
    order = np.lexsort((same, pair))
    p, s = pair[order], same[order]
    turned = np.flatnonzero((p[1:] == p[:-1]) & (s[1:] != s[:-1]))
    return np.isin(pair, p[turned])


# -- the rows again ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A data set with its index."""

    source: Source
    encoder: Encoder
    index: Artefact

    def side(self, held: bool) -> NDArray[np.int64]:
        """Which rows of the index are on one side of the split."""
        return np.flatnonzero(self.index.arrays["held"] == held)

    def longest_prompt(self, tokens: int, held: bool) -> NDArray[np.int64]:
        """Those of one side whose prompt has at most so many tokens."""
        side = self.side(held)
        return np.asarray(side[self.index.arrays["lengths"][side, 0] <= tokens], np.int64)

    def read(self, which: Sequence[int] | NDArray[np.int64]) -> list[Row]:
        """Rows of the index, in the order asked for. Raises StageFailure where one is not what it was."""
        which = np.asarray(which, np.int64)
        arrays = self.index.arrays
        order = np.argsort(arrays["position"][which], kind="stable")
        found: list[Row | None] = [None] * len(which)
        places = [int(arrays["position"][i]) for i in which[order]]
        for at, cells in zip(order, self.source.at(places), strict=True):
            found[at] = self._row(int(which[at]), cells)
        return [row for row in found if row is not None]

    def _row(self, i: int, cells: Mapping[str, Any]) -> Row:
        line = int(self.index.arrays["line"][i])
        try:
            row, _ = self.encoder.ids(self.encoder.texts(line, cells))
        except Unusable:
            row = None
        if row is None or row_check(row) != int(self.index.arrays["check"][i]):
            raise StageFailure(f"line {line} of the data is not what it was when the run began")
        return row
