"""Room for work that is under way. Whoever runs a node sets `SCRATCH`; what computes it may look, and need not."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scratch:
    """Where a node may keep what it has done so far, every so many seconds: a folder of its own, gone when it is done.

    Nothing there may change a node's output. What is found damaged goes to `quarantine`.
    """

    root: Path
    seconds: float
    quarantine: Path

    def folder(self, key: str) -> Path:
        return self.root / key


SCRATCH: ContextVar[Scratch | None] = ContextVar("scratch", default=None)
