"""Pools of this machine: this process itself, or child processes of one thread each.

Many small tasks gain nothing from threads inside.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from alignfirst.errors import AlignfirstError
from alignfirst.module_search import environment
from alignfirst.process_environment import WORKER
from alignfirst.store import Store
from alignfirst.study.execution.options import CHECKPOINT_SECONDS
from alignfirst.study.execution.pool import GRACE, THREAD_LIMITS, Outcome
from alignfirst.study.execution.worker import Report, Task, boot, message, run_task
from alignfirst.world import World

log = logging.getLogger(__name__)


class InlinePool:
    """Computes in this process: for tests, debuggers, and worlds that cannot be imported by name."""

    def __init__(self, world: World, store: Store, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        self.world, self.store, self.seconds = world, store, checkpoint_seconds
        self._tasks: deque[Task] = deque()

    @property
    def idle(self) -> int:
        return 0 if self._tasks else 1

    @property
    def busy(self) -> int:
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self) -> Outcome:
        task = self._tasks.popleft()
        return Outcome(task, 0, run_task(self.world, self.store, task.id, task.nodes, self.seconds))

    def interrupt(self) -> None:
        """The task has seen the interrupt itself."""

    def close(self) -> None:
        self._tasks.clear()


class ProcessPool:
    """Workers as child processes, started when there is work for them."""

    def __init__(
        self, reference: str, store: Store, workers: int, checkpoint_seconds: float = CHECKPOINT_SECONDS
    ) -> None:
        self.start: dict[str, Any] = {"world": reference, "store": str(store.root.absolute())}
        self.start |= {"checkpoint_seconds": checkpoint_seconds, "paths": sys.path}
        self.limit = workers
        self._inbox: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: list[Worker] = []

    @property
    def idle(self) -> int:
        return self.limit - self.busy

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def submit(self, task: Task) -> None:
        free = [worker for worker in self._workers if worker.task is None]
        if not free:
            numbers = {worker.number for worker in self._workers}
            free = [Worker(min(set(range(self.limit)) - numbers), self.start, self._inbox)]
            self._workers += free
        free[0].give(task)

    def wait(self) -> Outcome:
        while True:
            try:
                worker, answer = self._inbox.get(timeout=1.0)  # the timeout lets signals through on every platform
            except queue.Empty:
                continue
            if answer is None:
                outcome = self._bury(worker)
                if outcome is not None:
                    return outcome
            elif "ready" in answer:
                worker.ready = True
            elif "task" not in answer:
                raise AlignfirstError(answer["fatal"])
            else:
                task, worker.task = worker.task, None
                assert task is not None
                return Outcome(task, worker.number, Report(**answer))

    def interrupt(self) -> None:
        """Ask by SIGTERM. A worker without a long stage dies of it; others leave once their checkpoint is written."""
        busy = [worker for worker in self._workers if worker.task is not None]
        for worker in busy:
            worker.ask()
        deadline, told = time.monotonic() + GRACE, False
        while any(worker.alive for worker in busy) and time.monotonic() < deadline:
            if not told and time.monotonic() > deadline - GRACE + 1.0:
                told = True
                log.warning("note: stages under way write down how far they are; interrupt again to stop at once.")
            time.sleep(0.02)

    def close(self) -> None:
        """Kill at once: files appear whole or not at all."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.reap()
        self._workers.clear()

    def _bury(self, worker: Worker) -> Outcome | None:
        self._workers.remove(worker)
        code = worker.reap()
        if not worker.ready and code >= 0:
            raise AlignfirstError(f"a worker process could not start (exit code {code}); its words are above.")
        if worker.task is None:
            return None
        return Outcome(worker.task, worker.number, None, _death(code))


class Worker:
    """One child process, and the thread that listens to it."""

    def __init__(
        self, number: int, start: dict[str, Any], inbox: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]
    ) -> None:
        self.number, self.ready = number, False
        self.task: Task | None = None
        self.process = subprocess.Popen(
            boot(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment() | dict.fromkeys(THREAD_LIMITS, "1") | {WORKER: str(number)},
            process_group=0,  # Ctrl-C reaches the parent only, which then stops its workers
        )
        self._thread = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._thread.start()
        self._send(start)

    def give(self, task: Task) -> None:
        self.task = task
        self._send(message(task))

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self) -> None:
        self.process.terminate()

    def stop(self) -> None:
        self.process.kill()

    def reap(self) -> int:
        """Wait for the end of the process; its exit code, negative for a signal."""
        code = self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        return code

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died; the listener tells
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, inbox: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # cut short by its death
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
