"""What a campaign tried and what survived, by promise."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Count:
    """Trials of one promise. `figures` holds what was measured on the way: the largest value of each name."""

    promises: dict[str, str] = field(default_factory=dict)  # by the test that proves it
    tried: int = 0
    survived: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def trial(self) -> AbstractContextManager[None]:
        """One attempt: it survived if the block does not raise."""
        return self.trials(1)

    @contextmanager
    def trials(self, number: int) -> Iterator[None]:
        """So many attempts at once, such as texts on one page: all survived if the block does not raise."""
        self.tried += number
        yield
        self.survived += number

    def most(self, **figures: float) -> None:
        """Note figures, such as seconds taken; the largest of each stays."""
        for name, value in figures.items():
            self.figures[name] = max(round(value, 3), self.figures.get(name, -math.inf))


class Ledger:
    """Counts by name. A fast and a slow run of one test add up."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}

    def of(self, name: str, test: str, promise: str) -> Count:
        count = self.counts.setdefault(name, Count())
        count.promises[test] = promise
        return count

    def plain(self) -> dict[str, Any]:
        """By name; each with the day and the number of cores, since a later ledger may replace only a part."""
        where = {"day": datetime.date.today().isoformat(), "cores": os.cpu_count()}
        return {name: asdict(count) | where for name, count in sorted(self.counts.items())}
