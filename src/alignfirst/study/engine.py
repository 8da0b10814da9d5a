"""Processes that work off a schedule: here, or on a Ray cluster (engine_ray.py). What they compute is in the store.

One thread each: many small tasks gain nothing from threads inside.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, Protocol

from alignfirst import files
from alignfirst.errors import AlignfirstError, InputError, StoreError, Terminated
from alignfirst.store import Store
from alignfirst.study.schedule import Schedule
from alignfirst.study.worker import CHECKPOINT_SECONDS, Report, Task, message, run_task
from alignfirst.worlds.protocol import World

Progress = Callable[[int, int, str, int], None]  # nodes settled, nodes in all, kind of the last task, busy workers
OnReport = Callable[[Task, Report, int, int], None]  # task, what became of it, its worker, busy workers

log = logging.getLogger(__name__)

INTERRUPTS = (KeyboardInterrupt, SystemExit)
GRACE = 8.0  # seconds in which stages that were interrupted may write down how far they are
BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from alignfirst.study.worker import main; main()"
NUMBER = "ALIGNFIRST_WORKER"  # of the worker, from 0: a world may take a GPU by it
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as `Terminated`, so that what it holds is given back. Main thread only."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a task takes of it. Without an address it is the one of RAY_ADDRESS, else one that is
    started on this machine for as long as the run takes."""

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise InputError("--engine ray needs Ray", "no ray", "Install it: pip install 'alignfirst[ray]'.")
        if not 0.01 <= self.cpus < math.inf:
            raise InputError("cpus of a task must be >= 0.01", self.cpus, "1 is the default.")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus != int(self.gpus)):
            cure = "Ray gives whole ones, or a share of one: 0.5 lets two tasks share it."
            raise InputError("gpus of a task must be >= 0, and whole above 1", self.gpus, cure)


@dataclass(frozen=True)
class Means:
    """How a study is computed. Nothing here changes what comes out."""

    checkpoint_seconds: float = CHECKPOINT_SECONDS  # a stage that takes longer keeps what it has done so far
    cluster: Cluster | None = None  # None: processes of this machine

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            cure = "30 is the default; a large number means never."
            raise InputError("checkpoints must be 0 or more seconds apart", self.checkpoint_seconds, cure)


def execute(
    schedule: Schedule,
    world: World,
    reference: str,
    store: Store,
    workers: int,
    on_report: OnReport,
    means: Means | None = None,
    on_death: Callable[[], None] | None = None,
) -> None:
    """Work the schedule off. `workers` = 0 computes in this process; on a cluster they are tasks at once, at most.

    Raises StoreError when the store cannot be written. However the call ends, no process of it is left, and what was
    computed until then is in the store. Interrupted, it gives long stages a few seconds to write down how far they
    are; interrupted again, it ends at once.
    """
    pool = pool_for(world, reference, store, workers, means or Means())
    try:
        while not schedule.finished:
            while pool.idle and (task := schedule.next(pool.idle)) is not None:
                pool.submit(task)
            outcome = pool.wait()
            if outcome.report is None:
                schedule.died(outcome.task, outcome.death)
                if on_death is not None:  # what its nodes failed with may be what others wait for
                    on_death()
                continue
            settle(schedule, outcome.task, outcome.report)
            on_report(outcome.task, outcome.report, outcome.worker, pool.busy)
    except INTERRUPTS:
        pool.interrupt()
        raise
    finally:
        pool.close()
        files.sweep(store.root)


def pool_for(world: World, reference: str, store: Store, workers: int, means: Means) -> Pool:
    from alignfirst.study import team

    if team.launched() > 1:
        return team.TeamPool(world, store, means.checkpoint_seconds)
    if means.cluster is not None:
        from alignfirst.study.engine_ray import RayPool  # imports ray

        return RayPool(reference, store, workers, means.cluster, means.checkpoint_seconds)
    if not workers:
        return InlinePool(world, store, means.checkpoint_seconds)
    return ProcessPool(reference, store, workers, means.checkpoint_seconds)


def settle(schedule: Schedule, task: Task, report: Report) -> None:
    if report.fatal is not None:
        raise StoreError(report.fatal)
    schedule.succeed(node.key for node in task.nodes if node.key in report.digests)
    for key, reason in report.failures.items():
        schedule.fail(key, reason)


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
        self.start["checkpoint_seconds"] = checkpoint_seconds
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
            [sys.executable, "-c", BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | dict.fromkeys(THREAD_LIMITS, "1") | {NUMBER: str(number)},
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
