"""One run in several processes, started together by `accelerate launch` or torchrun: the first leads, others follow.

Trainings that the world names in `together` are shared by all; other tasks are dealt out, one a process. All write to
one store, and every node is stored by one of them. A process that dies takes the others with it, for they would wait
for ever; the same command goes on from the store.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from typing import Any, cast

from alignfirst.errors import InputError
from alignfirst.nodes import Load, Node
from alignfirst.nodes import Outcome as Result
from alignfirst.process_environment import check_profile, launched
from alignfirst.store import Store
from alignfirst.study.execution.pool import Outcome
from alignfirst.study.execution.worker import Report, Task, message, serve
from alignfirst.world import World

Order = list[dict[str, Any]]  # tasks: one for all processes, or one for each


def shared_kinds(world: World) -> frozenset[str]:
    """Kinds of nodes that processes compute together. Raises InputError for a world that has none."""
    if not world.together:
        cure = "Its models are small: --workers gives every process a model of its own."
        raise InputError("several processes share trainings in worlds hf and chain", f"world {world.name}", cure)
    return frozenset(world.together)


def check(world: World, nodes: Mapping[str, Node]) -> None:
    """Raise InputError for a plan that a team cannot work off."""
    shared_kinds(world)
    check_profile()
    if any(node.settings.get("trainer") == "trl" for node in nodes.values()):
        cure = "Set align.trainer=native, or leave --processes out and use --workers."
        raise InputError("several processes share trainings of the native trainer", "trainer trl", cure)


class ProcessGroupRunner:
    """What every process of a team does with an order."""

    at_work = False  # the others wait for this process's part

    def __init__(self, world: World, store: Store, seconds: float) -> None:
        self.team = import_module("alignfirst.lm.io.numpy_api").team()
        self.world, self.store, self.seconds, self.kinds = world, store, seconds, shared_kinds(world)

    def carry_out(self, order: Order) -> list[Report | None]:
        """Reports by process; None of those that had nothing to do or that another stored."""
        ProcessGroupRunner.at_work = True
        reports = self._carry_out(order)
        ProcessGroupRunner.at_work = False
        return reports

    def _carry_out(self, order: Order) -> list[Report | None]:
        shared, rank, report = len(order) == 1 and order[0]["nodes"][0][0] in self.kinds, self.team.rank, None
        if shared:
            report = serve(cast(World, _EndsOnFailure(self.world)), self.store, order[0], self.seconds, keep=rank == 0)
        elif rank < len(order):
            report = serve(self.world, self.store, order[rank], self.seconds)
        told = self.team.gather_objects(None if report is None or (shared and rank) else asdict(report))
        return [None if plain is None else Report(**plain) for plain in told]


def follow(world: World, store: Store, seconds: float) -> None:
    """Carry out what the first process orders, until it says that nothing is left."""
    runner = ProcessGroupRunner(world, store, seconds)
    while (order := runner.team.broadcast(None)) is not None:
        runner.carry_out(order)


@contextmanager
def leading() -> Iterator[None]:
    """Of the first process: at the end of the block the others may leave. One that was interrupted at work just goes;
    the launcher ends those that wait for it."""
    try:
        yield
    finally:
        if launched() > 1 and not ProcessGroupRunner.at_work:
            import_module("alignfirst.lm.io.numpy_api").team().broadcast(None)


class ProcessGroupPool:
    """The team as a pool, in its first process."""

    def __init__(self, world: World, store: Store, seconds: float) -> None:
        self.runner = ProcessGroupRunner(world, store, seconds)
        self._waiting: deque[Task] = deque()
        self._done: deque[Outcome] = deque()

    @property
    def idle(self) -> int:
        return int(self.runner.team.size) - self.busy

    @property
    def busy(self) -> int:
        return len(self._waiting) + len(self._done)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self) -> Outcome:
        if not self._done:
            tasks = self._next()
            reports = self.runner.carry_out(self.runner.team.broadcast([message(task) for task in tasks]))
            self._done.extend(Outcome(task, n, report) for n, (task, report) in enumerate(zip(tasks, reports)))  # noqa: B905
        return self._done.popleft()

    def _next(self) -> Sequence[Task]:
        """One task for all, or one for each."""
        if self._waiting[0].kind in self.runner.kinds:
            return [self._waiting.popleft()]
        apart = [task for task in self._waiting if task.kind not in self.runner.kinds]
        for task in apart:
            self._waiting.remove(task)
        return apart

    def interrupt(self) -> None:
        """The task has seen the interrupt itself."""

    def close(self) -> None:
        """The others leave at the end of `leading`: a run may have nothing to do and no pool."""


class _EndsOnFailure:
    """A world whose unforeseen failures end the process: the others may be waiting for it in the middle of a sum."""

    def __init__(self, world: World) -> None:
        self.world, self.name = world, world.name

    def run(self, nodes: Sequence[Node], load: Load) -> list[Result]:
        try:
            return self.world.run(nodes, load)
        except Exception:
            traceback.print_exc()
            os._exit(1)
