"""Which nodes to compute next, and what a failure means for the nodes behind it. No processes, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import ceil

from alignfirst.nodes import Node
from alignfirst.study.execution.worker import Task
from alignfirst.world import World

Bucket = tuple[str, Hashable]

MAX_DEATHS = 32  # of workers; beyond it a task that kills its worker is given up whole


class Schedule:
    """Nodes that are pending, ready, given out, or settled. A node is ready once its inputs exist.

    Nodes of one kind and `world.group` are ready in one bucket, in the order of the plan, and are given out in tasks of
    at most `world.batch_size`. The bucket with the longest way (in seconds) to the end of the plan goes first.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        pending: Iterable[str],
        world: World,
        seconds: Callable[[Node], float],
        held: Iterable[str] = (),
    ) -> None:
        """`held` nodes are not given out before they are released, even if all their inputs are there."""
        self.nodes, self.world = nodes, world
        todo = set(pending)
        self.pending = [key for key in nodes if key in todo]
        self.failures: dict[str, str] = {}
        self.blocked: dict[str, str] = {}
        self.computed = 0
        self._deaths = self._tasks = 0
        self._retries: list[Task] = []
        self._held, self._ready_but_held = set(held), set[str]()
        self._order = {key: i for i, key in enumerate(self.pending)}
        self._bucket: dict[str, Bucket] = {k: (nodes[k].kind, world.group(nodes[k])) for k in self.pending}
        self._children: dict[str, list[str]] = {key: [] for key in self.pending}
        self._waiting: dict[str, int] = {}
        self._ready: dict[Bucket, list[tuple[int, str]]] = {}
        self._unready: dict[Bucket, int] = {}
        for key in self.pending:
            inputs = {i for i in nodes[key].inputs.values() if i in todo}
            for i in inputs:
                self._children[i].append(key)
            self._waiting[key] = len(inputs)
            self._unready[self._bucket[key]] = self._unready.get(self._bucket[key], 0) + 1
        self._way = self._longest_ways(seconds)
        for key in self.pending:
            if not self._waiting[key]:
                self._make_ready(key)

    @property
    def settled(self) -> int:
        """How many of the pending nodes are computed, failed or blocked."""
        return self.computed + len(self.failures) + len(self.blocked)

    @property
    def finished(self) -> bool:
        return self.settled == len(self.pending)

    def next(self, idle: int) -> Task | None:
        """The next task for one of so many idle workers; None where everything waits for work in progress."""
        if self._retries:
            return self._retries.pop(0)
        buckets = [bucket for bucket, ready in self._ready.items() if ready]
        if not buckets:
            return None
        best = max(buckets, key=self._priority)
        ready, size = self._ready[best], self._size(best)
        if len(buckets) < idle:  # better two halves at once than a whole one beside an idle core
            size = min(size, ceil(len(ready) / idle))
        keys = [heapq.heappop(ready)[1] for _ in range(min(size, len(ready)))]
        return self._task([self.nodes[key] for key in keys], 0)

    def release(self, keys: Iterable[str]) -> None:
        """Let held nodes be given out as soon as they are ready."""
        for key in keys:
            self._held.discard(key)
            if key in self._ready_but_held and key not in self.blocked:
                self._make_ready(key)
            self._ready_but_held.discard(key)

    def succeed(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.computed += 1
            for child in self._children[key]:
                self._waiting[child] -= 1
                if not self._waiting[child] and child not in self.blocked:
                    self._make_ready(child)

    def fail(self, key: str, reason: str) -> None:
        """Nothing behind a failed node can be computed; nodes beside it go on."""
        self.failures[key] = reason
        behind = list(self._children[key])
        while behind:
            child = behind.pop()
            if child not in self.blocked:
                self.blocked[child] = f"the {self.nodes[key].kind} before it failed: {reason}"
                behind.extend(self._children[child])

    def died(self, task: Task, how: str) -> None:
        """A worker died at a task. Its nodes are tried again in halves, so that one that kills fails alone."""
        self._deaths += 1
        if task.attempt and (len(task.nodes) == 1 or self._deaths > MAX_DEATHS):
            for node in task.nodes:
                self.fail(node.key, f"its worker process died each time it was tried ({how})")
            return
        half = ceil(len(task.nodes) / 2)
        parts = (task.nodes[:half], task.nodes[half:])
        self._retries.extend(self._task(part, task.attempt + 1) for part in parts if part)

    def _task(self, nodes: Iterable[Node], attempt: int) -> Task:
        self._tasks += 1
        return Task(self._tasks, tuple(nodes), attempt)

    def _make_ready(self, key: str) -> None:
        if key in self._held:
            self._ready_but_held.add(key)
            return
        bucket = self._bucket[key]
        self._unready[bucket] -= 1
        heapq.heappush(self._ready.setdefault(bucket, []), (self._order[key], key))

    def _size(self, bucket: Bucket) -> int:
        return max(1, self.world.batch_size(self.nodes[self._ready[bucket][0][1]]))

    def _priority(self, bucket: Bucket) -> tuple[bool, float, int]:
        """Full tasks first (and those that will not grow), then the longest way, then the order of the plan."""
        ready = self._ready[bucket]
        order, key = ready[0]
        full = len(ready) >= self._size(bucket) or not self._unready[bucket]
        return full, self._way[key], -order

    def _longest_ways(self, seconds: Callable[[Node], float]) -> dict[str, float]:
        ways: dict[str, float] = {}
        for key in reversed(self.pending):  # children stand behind their inputs
            ways[key] = seconds(self.nodes[key]) + max((ways[c] for c in self._children[key]), default=0.0)
        return ways
