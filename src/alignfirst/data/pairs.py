"""Usable rows of a source, one by one or all in memory, and rows that stand there more than once.

Repeats count once; a pair that stands both ways round does not count at all.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.data.layouts import Layout
from alignfirst.data.rows import RowCounts, Text, TextRow, Unusable, by_count, contents
from alignfirst.data.shapes import COLUMNS, MAX_CELL, Kind, TextReader
from alignfirst.data.sources import Source, source_of
from alignfirst.errors import InputError

MAX_KEPT = 512 << 20  # bytes of rows that are held in memory at once, each with what holding one costs
HELD = 256  # bytes: the objects of a row beside its texts
WARN_EVERY = 2_000  # rows between two calls of `progress`


@dataclass(frozen=True)
class LoadedRows:
    """Usable rows in the order of their source, and the counts of all."""

    rows: tuple[TextRow, ...]
    counts: RowCounts

    def __len__(self) -> int:
        return len(self.rows)

    def plain(self) -> dict[str, Any]:
        """For JSON: how many rows were read and kept, and counts by reason with the first lines of each."""
        return {"rows": self.counts.total, "kept": len(self.rows)} | self.counts.plain()

    def told(self) -> list[str]:
        """How rows were understood, what is not used, what is odd about rows that are kept."""
        return [*self.counts.sentences(), *(f"kept {c.count}: {what}" for what, c in by_count(self.counts.notes))]

    def summary(self) -> str:
        """One line: how many were kept, and why others were not."""
        why = ", ".join(
            f"{c.count} {reason} (line {', '.join(map(str, c.lines))})" for reason, c in by_count(self.counts.dropped)
        )
        return f"{len(self.rows)} of {self.counts.total} rows kept" + (f"; dropped: {why}" if why else "")


def read_pairs(
    name: str | Path, limit: int | None = None, max_cell: int = MAX_CELL, layout: Layout | None = None
) -> LoadedRows:
    """Preference pairs of any source that `source_of` knows; with `limit`, only its first so many rows.

    A pair that stands there both ways round is dropped both times: neither label can be trusted. A repeated row counts
    once. Raises InputError where no row is left, with the reasons, StoreError where the file cannot be read.
    """
    return load_rows("pairs", name, limit, max_cell, layout)


def load_rows(
    kind: Kind,
    name: str | Path,
    limit: int | None = None,
    max_cell: int = MAX_CELL,
    layout: Layout | None = None,
) -> LoadedRows:
    """All usable rows of a source, `layout` saying what its columns are.

    Raises InputError for a bad limit, too many rows for memory, and no row at all.
    """
    if limit is not None and limit < 1:
        raise InputError("the number of rows must be at least 1", limit, "Leave it out to read all.")
    counts, repeats, size = RowCounts(), Repeats(), 0
    rows: list[TextRow] = []
    for _, row in text_rows(source_of(name), TextReader(kind, counts, max_cell, layout or Layout()), limit):
        rows.append(row)
        repeats.add(row)
        size += HELD + sum(getsizeof(text) for part in row[1:4] for text in contents(part))
        if size > MAX_KEPT:
            rule = f"{kind} must fit into memory: at most {MAX_KEPT >> 20} MB of rows"
            raise InputError(rule, f"more from line {row.line} on", f"Use --rows {counts.total - 1} or fewer.")
    kept = repeats.kept(np.array([row.line for row in rows], np.int64), counts)
    found = LoadedRows(tuple(row for row, keep in zip(rows, kept, strict=True) if keep), counts)
    if not counts.total:
        rule = f"there must be at least one {kind.removesuffix('s')}"
        raise InputError(rule, f"{name}, an empty file", "One JSON object a line.")
    check_some_left(found, kind)
    return found


def check_some_left(found: LoadedRows, kind: Kind) -> None:
    """Raises InputError, with the reasons, where no row is usable."""
    if not found.rows:
        raise InputError("at least one row must be usable", found.summary(), none_usable(kind))


def none_usable(kind: Kind) -> str:
    """The cure where no row of a kind is usable."""
    return f"Repair the file, or say which of its columns are {COLUMNS[kind]} (data.columns), or its data.shape."


def text_rows(
    source: Source, reader: TextReader, limit: int | None = None, progress: Callable[[int], None] = lambda rows: None
) -> Iterator[tuple[int, TextRow]]:
    """Usable rows, each with its position in the source; the others are counted as dropped in the reader's counts.

    `limit`: how many rows are read, all where it is None. `progress` is told the number of rows read so far.
    """
    counts = reader.counts
    for placed in islice(source.rows(), limit):
        counts.total += 1
        try:
            if placed.cells is None:
                raise Unusable(placed.wrong or "no row")
            row = reader.row(placed.line, placed.cells)
        except Unusable as e:
            counts.drop(str(e), placed.line)
        else:
            yield placed.position, row
        if counts.total % WARN_EVERY == 0:
            progress(counts.total)


# -- rows that stand more than once ---------------------------------------------------------------------------------

REPEATED = "repeats an earlier row"
CONTRADICTING = "contradicting labels (the same pair both ways round)"


class Repeats:
    """Of the rows that were added, in their order. Sixteen bytes of each are kept, no text is."""

    def __init__(self) -> None:
        self.same, self.pair = array("Q"), array("Q")

    def add(self, row: TextRow) -> None:
        self.same.append(number(digest(row.prompt, row.chosen, row.rejected, row.tools)))
        # The same in either order: a pair that stands both ways round has two of `same` and one of `pair`
        answers = sorted(digest(answer) for answer in (row.chosen, row.rejected))
        self.pair.append(number(hashlib.sha256(digest(row.prompt, row.tools) + answers[0] + answers[1]).digest()))

    def kept(self, lines: NDArray[np.int64], counts: RowCounts) -> NDArray[np.bool_]:
        """Which rows are left, [n]; the others are counted as dropped, each with its line of `lines` [n]."""
        same, pair = as_array(self.same, np.uint64), as_array(self.pair, np.uint64)
        contradicting = _both_ways(same, pair)
        repeated = _seen_before(same) & ~contradicting
        for which, reason in ((contradicting, CONTRADICTING), (repeated, REPEATED)):
            for line in lines[which].tolist():
                counts.drop(reason, line)
        return np.asarray(~(contradicting | repeated))


def as_array(values: array[Any], dtype: Any) -> NDArray[Any]:
    """The numbers of an `array`, not copied."""
    return np.frombuffer(values, dtype) if len(values) else np.empty(0, dtype)


def digest(*parts: Text) -> bytes:
    """16 bytes that tell texts apart."""
    text = json.dumps([part if isinstance(part, str) else [list(m) for m in part] for part in parts])
    return hashlib.sha256(text.encode()).digest()[:16]


def number(digest: bytes) -> int:
    """The first 64 bits of a digest."""
    return int.from_bytes(digest[:8], "little")


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
