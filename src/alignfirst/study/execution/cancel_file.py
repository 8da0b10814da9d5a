"""How a driver tells its tasks on other machines to leave: by a file on the file system that they share.

Ray can cancel tasks, but where one starts or ends at that moment the driver may be aborted ("Tried to complete task
that was not pending", ray-project/ray#54785). Here a task ends by itself, and its report is that of any other.
"""

from __future__ import annotations

import _thread
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignfirst.files import TMP, writing

REQUESTED = b"leave"
POLL = 0.25  # seconds


class CancelFile:
    """A file that exists while its driver is at work. What a killed driver leaves is swept by the next."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"driver-{secrets.token_hex(8)}{TMP}"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"at work")

    def request(self) -> None:
        """Ask the tasks to leave."""
        with suppress(OSError):
            self.path.write_bytes(REQUESTED)

    def close(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def is_requested(path: Path) -> bool:
    """Whether the driver of this file has asked its tasks to leave.

    The file is opened, which asks the server of a network file system: whether one exists may come from a cache.
    """
    try:
        return path.read_bytes() == REQUESTED
    except OSError:
        return False


@contextmanager
def interruptible(path: Path) -> Iterator[None]:
    """Interrupt the block, which is to run in the main thread, by KeyboardInterrupt once that is requested.

    This is no signal, for Ray's workers ignore SIGINT: a call that blocks is interrupted only when it returns.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            if is_requested(path):
                _thread.interrupt_main()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
