"""The index of a data set: which rows are usable, on which side of the split, how long; and its rows, read again.

The index is a few numbers a row, made in one pass that keeps no text, so that files much larger than memory can be
used; training reads the rows that it needs at their places again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.data.pairs import Repeats, as_array, number, text_rows
from alignfirst.data.rows import RowCounts, TextRow, TokenRow, Unusable, contents
from alignfirst.data.shapes import TextReader
from alignfirst.data.sources import Source
from alignfirst.data.split import held_out, split_number
from alignfirst.data.tokenise import Encoder, Rules
from alignfirst.errors import StageFailure
from alignfirst.nodes import Artefact, Json

VERSION = 4  # of the index; 3: answers end where a turn does; 4: its metadata say how rows were understood
TOGETHER, MAX_TOGETHER = 256, 1 << 20  # rows, and characters, in one call of the tokenizer


def index_key(source: Source, tokenizer: str, rules: Rules) -> str:
    """Key of the index of a source: its content, the tokenizer's digest, the rules."""
    text = json.dumps([VERSION, source.identity, tokenizer, asdict(rules)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def index(source: Source, encoder: Encoder, progress: Callable[[int], None] = lambda rows: None) -> Artefact:
    """One pass over all rows. It may keep none, or none on one side of the split: the caller decides what that means.

    arrays: `line`, `position`, `check` (of the row's content), `held`, `lengths` [n, 3] in tokens. meta: rows read,
    dropped and noted, by reason, with the first five lines of each. Raises InputError where the source cannot be read
    to its end or messages have no chat template, StoreError where a file cannot be read.
    """
    scan, rules = Scan(encoder), encoder.rules
    for position, row in text_rows(
        source, TextReader(rules.kind, scan.counts, layout=encoder.layout), rules.limit, progress
    ):
        scan.take(position, row)
    found = scan.result()
    return Artefact(found.arrays, {**found.meta, "identity": source.identity})


class Scan:
    """Rows in, a few numbers of each kept. Texts wait until there are enough of them for one call of the tokenizer."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.counts, self.repeats, self.conversational = encoder, RowCounts(), Repeats(), 0
        self.waiting: list[tuple[int, TextRow]] = []  # where each is in the source
        self.characters = 0
        self.line, self.position = array("q"), array("q")
        self.prompt, self.check = array("Q"), array("Q")
        self.lengths = array("i")

    def take(self, position: int, row: TextRow) -> None:
        self.waiting.append((position, row))
        self.characters += sum(len(t) for part in row[1:4] for t in contents(part))
        if len(self.waiting) == TOGETHER or self.characters > MAX_TOGETHER:
            self.encode()

    def encode(self) -> None:
        """Make numbers of the texts that wait."""
        found = self.encoder.many([texts for _, texts in self.waiting])
        for (position, texts), row in zip(self.waiting, found, strict=True):
            if isinstance(row, Unusable):
                self.counts.drop(str(row), texts.line)
            else:
                self._keep(position, texts, row)
        self.waiting, self.characters = [], 0

    def _keep(self, position: int, texts: TextRow, row: TokenRow) -> None:
        for oddity in self.encoder.odd(texts):
            self.counts.note(oddity, texts.line)
        if row.moved:
            self.counts.note("a token that spans the end of the prompt: it goes to the answers", texts.line)
        self.conversational += texts.conversational
        self.line.append(texts.line)
        self.position.append(position)
        self.repeats.add(texts)
        self.prompt.append(split_number(texts.prompt, self.encoder.rules.split_seed))
        self.check.append(row_check(row))
        self.lengths.extend((len(row.prompt), len(row.chosen), len(row.rejected)))

    def result(self) -> Artefact:
        self.encode()
        line = as_array(self.line, np.int64)
        kept = self.repeats.kept(line, self.counts)
        held = held_out(as_array(self.prompt, np.uint64)[kept], self.encoder.rules.held_out)
        arrays = {
            "line": line[kept],
            "position": as_array(self.position, np.int64)[kept],
            "check": as_array(self.check, np.uint64)[kept],
            "held": held,
            "lengths": as_array(self.lengths, np.int32).reshape(-1, 3)[kept],
        }
        meta: dict[str, Json] = {"kind": self.encoder.rules.kind, "rows": self.counts.total, "kept": int(kept.sum())}
        meta |= {"train": int((~held).sum()), "held_out": int(held.sum()), "conversational": self.conversational}
        return Artefact(arrays, meta | self.counts.plain())


def row_check(row: TokenRow) -> int:
    """A number that tells whether a row is still what it was."""
    ids = np.array([len(row.prompt), len(row.chosen), *row.prompt, *row.chosen, *row.rejected], np.int64)
    return number(hashlib.sha256(ids.tobytes()).digest())


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

    def read(self, which: Sequence[int] | NDArray[np.int64]) -> list[TokenRow]:
        """Rows of the index, in the order asked for. Raises StageFailure where one is not what it was."""
        which = np.asarray(which, np.int64)
        order = np.argsort(self.index.arrays["position"][which], kind="stable")
        sorted_rows = which[order]
        cells = self.source.at(self.index.arrays["position"][sorted_rows].tolist())
        rows: list[TokenRow] = []
        for a in range(0, len(which), TOGETHER):
            rows += self._encoded(sorted_rows[a : a + TOGETHER], cells)
        return [rows[i] for i in np.argsort(order)]

    def _encoded(self, which: NDArray[np.int64], cells: Iterator[Mapping[str, Any]]) -> list[TokenRow]:
        """The next of the cells as the rows they were."""
        lines, checks = (self.index.arrays[name][which].tolist() for name in ("line", "check"))
        reader, texts = TextReader(self.encoder.rules.kind, RowCounts(), layout=self.encoder.layout), []
        for line, each in zip(lines, cells, strict=False):
            try:
                texts.append(reader.row(line, each))
            except Unusable:
                raise _changed(line) from None
        found = []
        for line, check, row in zip(lines, checks, self.encoder.many(texts), strict=True):
            if isinstance(row, Unusable) or row_check(row) != check:
                raise _changed(line)
            found.append(row)
        return found


def _changed(line: int) -> StageFailure:
    return StageFailure(f"line {line} of the data is not what it was when the run began")
