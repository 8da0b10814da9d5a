"""What a pool of workers is to a schedule: it takes tasks, and returns them done, or with the death of their worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from alignfirst.study.execution.worker import Report, Task

GRACE = 8.0  # seconds in which stages that were interrupted may write down how far they are
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True)
class Outcome:
    """A task that came back: with a report, or with the death of its worker in words."""

    task: Task
    worker: int
    report: Report | None
    death: str = ""


class Pool(Protocol):
    @property
    def idle(self) -> int: ...
    @property
    def busy(self) -> int: ...

    def submit(self, task: Task) -> None: ...

    def wait(self) -> Outcome: ...

    def interrupt(self) -> None:
        """Let tasks under way write down how far they are, for a few seconds."""
        ...

    def close(self) -> None:
        """Stop at once what is still under way."""
        ...
