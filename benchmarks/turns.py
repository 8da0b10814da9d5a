"""Subjects of a comparison, each in a process of its own, take turns: CPU-seconds, memory above a baseline (Linux)."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


class Turns:
    """One process for each subject: `python SCRIPT --child SUBJECT ARGS...`, which calls `serve`."""

    def __init__(self, script: str, subjects: tuple[str, ...], *args: str) -> None:
        self.processes = {s: self._start([sys.executable, script, "--child", s, *args], s) for s in subjects}

    @staticmethod
    def _start(command: list[str], subject: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{subject} did not start")
        return process

    def ask(self, subject: str, task: str) -> Answer:
        """Let one subject do one task: {"seconds", "mb", "result"}."""
        process = self.processes[subject]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(task + "\n")
        process.stdin.flush()
        answer: Answer = json.loads(process.stdout.readline())
        return answer

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def baseline() -> float:
    """Resident MB now, with freed memory given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS")


def serve(answer: Callable[[str], Any], base: float) -> None:
    """Do each task of stdin and tell what it took. Call `quiet_stdout` before anything is loaded."""
    print("ready", file=_ANSWERS[0], flush=True)
    for line in sys.stdin:
        baseline()
        Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark again
        begin = time.process_time()
        result = answer(line.strip())
        seconds = time.process_time() - begin
        reply = {"seconds": seconds, "mb": status("VmHWM") - base, "result": result}
        print(json.dumps(reply), file=_ANSWERS[0], flush=True)


_ANSWERS: list[Any] = []


def quiet_stdout() -> None:
    """Whatever a library prints goes to stderr: it is not an answer."""
    _ANSWERS.append(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)


def status(field: str) -> float:
    """MB, from Linux' view of this process."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":")]
    return int(line.split()[1]) / 1024
