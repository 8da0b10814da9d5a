"""Compact JSON: columns instead of objects, few digits, equal lists stored once."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from alignfirst.report.sentences.words import rounded


class Codes:
    """Values by number, in order of first appearance. Lists and mappings are told apart by their JSON."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.values: list[Any] = []
        self._place: dict[Hashable, int] = {}
        for value in values:
            self.add(value)

    def add(self, value: Any) -> int:
        """The number of a value; null is -1."""
        if value is None:
            return -1
        key = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else (type(value), value)
        if key not in self._place:
            self._place[key] = len(self.values)
            self.values.append(value)
        return self._place[key]


def columns(rows: Sequence[Mapping[str, Any]], digits: int = 4) -> dict[str, list[Any]]:
    """Rows with the same keys as one list a key, floats rounded to significant digits."""
    names = list(rows[0]) if rows else []
    return {n: [rounded(row[n], digits) for row in rows] for n in names}
