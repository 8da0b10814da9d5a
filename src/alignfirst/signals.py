"""SIGINT and SIGTERM, with one meaning in every process: what is held is given back before the process leaves.

SIGINT raises KeyboardInterrupt, as Python does by itself; SIGTERM raises `Terminated`. Only the main thread is ever
interrupted by them, and a handler that somebody else has set stays.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from alignfirst.errors import Terminated

ENDING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTS = (KeyboardInterrupt, SystemExit)  # what they raise
PR_SET_PDEATHSIG = 1


def raise_terminated(_: int, __: FrameType | None) -> None:
    raise Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as `Terminated`. Does nothing in other threads than the main one."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is done."""
    if not _in_main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    mine = [n for n in ENDING if signal.getsignal(n) is not None]  # None: a handler that is no Python function
    before = {n: signal.signal(n, lambda number, frame: came.append((number, frame))) for n in mine}
    try:
        yield
    finally:
        for n in mine:
            signal.signal(n, before[n])
        for number, frame in came:
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(number)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the handlers of SIGINT and SIGTERM that a library replaces in the block."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def ignore(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent() -> None:
    """Have the kernel kill this process once its parent is gone, even while compiled code holds the interpreter lock.

    On Linux only.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
