"""Faults inside the processes of a run: Python imports this module at start where its folder is on the path.

It changes nothing of what it watches: an audit hook sees files opened and renamed, and sends a signal at the n-th.

FAULT = a signal's name, sent to the command's process: SIGKILL takes its workers with it
FAULT_ON = open (a shard is about to be written, the default), rename (it is about to appear)
FAULT_AT = at which of these events of one worker
FAULT_DELAY = milliseconds after it, from another thread: in the middle of writing
"""

import os
import signal
import sys
import threading
import time


def _inject() -> None:
    number, wanted = signal.Signals[os.environ["FAULT"]], int(os.environ["FAULT_AT"])
    event = {"open": "open", "rename": "os.rename"}[os.environ.get("FAULT_ON", "open")]
    delay = float(os.environ.get("FAULT_DELAY", "0")) / 1000
    parent, seen = os.getppid(), 0

    def strike() -> None:
        time.sleep(delay)
        os.kill(parent, number)

    def watch(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if name != event or not (str(arguments[0]).endswith(".tmp") and ".shard." in str(arguments[0])):
            return
        seen += 1
        if seen != wanted:
            return
        if delay:
            threading.Thread(target=strike, daemon=True).start()
            return
        strike()
        time.sleep(0.2)  # the kernel kills a worker as soon as its parent is gone

    sys.addaudithook(watch)


if "FAULT" in os.environ and any("alignfirst.study.execution.worker" in argument for argument in sys.orig_argv):
    _inject()
