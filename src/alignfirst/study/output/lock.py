"""Who works in a run directory: one process at a time.

The lock is the operating system's, so that a killed holder holds nothing. `run.lock.json` only names the holder: it
stands beside the lock because some systems let nobody read a file that is locked, and others empty it at every try.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignfirst import files
from alignfirst.errors import RunLockedError
from alignfirst.study.output.manifest import now

LOCK, HOLDER = "run.lock", "run.lock.json"
WAIT, LOOKS = 1.0, 20  # seconds for which a holder's name is looked for, and how often


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a directory for this process. Raises RunLockedError at once where another holds it."""
    lock = FileLock(folder / LOCK, timeout=0)
    with files.writing(folder):
        try:
            lock.acquire()
        except Timeout:  # an OSError, too
            who = _named(folder)
            text = "process {pid} on {host} since {started}".format_map(who) if who else "another process"
            cure = "Wait until it is done, or choose another --out."
            raise RunLockedError(f"{folder} is in use by {text}. {cure}") from None
    try:
        files.sweep(folder)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started": now()}
        files.write_atomic(folder / HOLDER, [json.dumps(me).encode() + b"\n"])
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def holder(folder: Path) -> dict[str, Any] | None:
    """Who works in a directory at this moment: pid, host, started, empty where it cannot be told; None for nobody."""
    if not (folder / LOCK).exists():
        return None
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return _named(folder)
    except OSError:  # a read-only copy
        return None
    lock.release()
    return None


def _named(folder: Path) -> dict[str, Any]:
    """What the holder says of itself, once it has had the time: until then there is nothing, or a killed one's."""
    for _ in range(LOOKS):
        with suppress(OSError, ValueError):
            who = json.loads((folder / HOLDER).read_bytes())
            if isinstance(who, dict) and {"pid", "host", "started"} <= who.keys() and not _dead(who):
                return who
        time.sleep(WAIT / LOOKS)
    return {}


def _dead(who: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    pid = who.get("pid")
    if who.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        return False
    return False
