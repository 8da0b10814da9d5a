"""Progress on stderr: a bar where somebody watches, a line every few seconds where somebody will read a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alignfirst.cli import out
from alignfirst.study.execution.engine import Progress

EVERY = 5.0  # seconds between plain lines


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A function for the runner to call with nodes settled, nodes in all, kind of the last task, busy workers."""
    if sys.stderr.isatty():
        with _bar(title) as advance:
            yield advance
    else:
        yield plain_lines(title)


class Pace:
    """Steps a second since the start, what was stored before not counted."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.first: int | None = None
        self.settled = 0

    def at(self, settled: int) -> None:
        self.first = settled if self.first is None else self.first
        self.settled = settled

    def left(self, total: int) -> str:
        """Rate and time left in words; nothing while there is nothing to judge by."""
        done = self.settled - (self.first or 0)
        seconds = time.monotonic() - self.begin
        if done < 1 or seconds <= 0 or self.settled >= total:
            return ""
        return f", {done / seconds:.2g} a second, about {out.duration((total - self.settled) * seconds / done)} left"


def plain_lines(title: str) -> Progress:
    begin, pace = time.monotonic(), Pace()
    last = begin - EVERY

    def advance(settled: int, total: int, kind: str, busy: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY and not (settled == total and kind):
            return
        last = now
        doing = f", {kind}, {busy} busy" if kind else ""
        pace.at(settled)
        out.note(f"{title}: {settled} of {total} done{doing}, {out.duration(now - begin)}{pace.left(total)}")

    return advance


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with Bar(*columns, console=out.console(stderr=True), transient=True) as bar:
        task, pace = bar.add_task(out.clean(title), total=None, doing="planning"), Pace()

        def advance(settled: int, total: int, kind: str, busy: int) -> None:
            doing = f"{kind}, {busy} busy" if kind else "starting (the first run compiles)"
            pace.at(settled)
            doing += pace.left(total)
            bar.update(task, completed=settled, total=total, doing=doing)

        yield advance
