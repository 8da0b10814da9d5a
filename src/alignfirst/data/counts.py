"""How many rows were read, and by reason which were dropped and which are odd but kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FIRST_LINES = 5  # lines named per reason


@dataclass
class Counted:
    """Lines of the rows that share one reason."""

    every: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.every)

    @property
    def lines(self) -> list[int]:
        """The first five."""
        return sorted(self.every)[:FIRST_LINES]


@dataclass
class RowCounts:
    """Rows read so far, those dropped by reason, and what is odd about others that are kept."""

    total: int = 0
    dropped: dict[str, Counted] = field(default_factory=dict)
    notes: dict[str, Counted] = field(default_factory=dict)

    def drop(self, reason: str, line: int) -> None:
        self.dropped.setdefault(reason, Counted()).every.append(line)

    def note(self, what: str, line: int) -> None:
        self.notes.setdefault(what, Counted()).every.append(line)

    def plain(self) -> dict[str, Any]:
        """For JSON: `dropped` and `notes`, by reason a count and the first lines; the most frequent reason first."""
        return {
            name: {reason: {"count": c.count, "lines": c.lines} for reason, c in by_count(counted)}
            for name, counted in (("dropped", self.dropped), ("notes", self.notes))
        }


def by_count(counted: Mapping[str, Counted]) -> list[tuple[str, Counted]]:
    """Reasons with their rows, the most frequent first."""
    return sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))
