"""Rows that stand more than once: repeats count once, and a pair that stands both ways round does not count at all."""

from __future__ import annotations

import hashlib
import json
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.data.counts import RowCounts
from alignfirst.data.rows import Text, TextRow

REPEATED = "repeats an earlier row"
CONTRADICTING = "contradicting labels (the same pair both ways round)"


class Repeats:
    """Of the rows that were added, in their order. Sixteen bytes of each are kept, no text is."""

    def __init__(self) -> None:
        self.same, self.pair = array("Q"), array("Q")

    def add(self, row: TextRow) -> None:
        self.same.append(number(digest(row.prompt, row.chosen, row.rejected)))
        # The same in either order: a pair that stands both ways round has two of `same` and one of `pair`
        answers = sorted(digest(answer) for answer in (row.chosen, row.rejected))
        self.pair.append(number(hashlib.sha256(digest(row.prompt) + answers[0] + answers[1]).digest()))

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
