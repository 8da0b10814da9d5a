"""A whole file of preference pairs in memory: the rows that can be used, and what became of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from sys import getsizeof
from typing import Any

import numpy as np

from alignfirst.data.counts import RowCounts, by_count
from alignfirst.data.repeats import Repeats
from alignfirst.data.rows import TextRow, Unusable, contents
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

    def summary(self) -> str:
        """One line: how many were kept, and why others were not."""
        why = ", ".join(
            f"{c.count} {reason} (line {', '.join(map(str, c.lines))})" for reason, c in by_count(self.counts.dropped)
        )
        return f"{len(self.rows)} of {self.counts.total} rows kept" + (f"; dropped: {why}" if why else "")


def read_pairs(name: str | Path, limit: int | None = None, max_cell: int = MAX_CELL) -> LoadedRows:
    """Preference pairs of any source that `source_of` knows; with `limit`, only its first so many rows.

    A pair that stands there both ways round is dropped both times: neither label can be trusted. A repeated row counts
    once. Raises InputError where no row is left, with the reasons, StoreError where the file cannot be read.
    """
    return load_rows("pairs", name, limit, max_cell)


def load_rows(kind: Kind, name: str | Path, limit: int | None = None, max_cell: int = MAX_CELL) -> LoadedRows:
    """All usable rows of a source. Raises InputError for a bad limit, too many rows for memory, and no row at all."""
    if limit is not None and limit < 1:
        raise InputError("the number of rows must be at least 1", limit, "Leave it out to read all.")
    counts, repeats, size = RowCounts(), Repeats(), 0
    rows: list[TextRow] = []
    for _, row in text_rows(source_of(name), TextReader(kind, counts, max_cell), limit):
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
    if not found.rows:
        cure = f"Repair the file, or name its columns {COLUMNS[kind]}."
        raise InputError("at least one row must be usable", found.summary(), cure)
    return found


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
