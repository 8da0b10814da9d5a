"""Artefacts of nodes that audits ask for, kept between audits: what is stored is read, the rest is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alignfirst.errors import RefusedError, StageFailure
from alignfirst.files import default_cache
from alignfirst.nodes import Artefact, Node
from alignfirst.signals import terminable
from alignfirst.store import Store
from alignfirst.study.execution.engine import Progress, execute
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task, load_world
from alignfirst.world import World

FOLDER = "audit"  # in the cache of this package: an audit at another beta, wherever it writes, finds what it needs


@dataclass(frozen=True)
class NodeCache:
    """A store in the user's cache, and how a study's engine computes what is not there yet.

    Where `options` name no workers, they are one an available core, or as many as a cluster has room for. `progress` is
    as of `alignfirst.run`.
    """

    options: ExecutionOptions
    progress: Progress | None = None
    store: Store = field(default_factory=lambda: Store(default_cache() / FOLDER))

    def artefacts(self, world: str, nodes: Mapping[str, Node], wanted: Iterable[str]) -> dict[str, Artefact]:
        """Artefacts of the wanted keys. `nodes`, by key, hold them and what they need, inputs before those that need
        them; an input that is no node must be in the store.

        Raises RefusedError where a node cannot use an input, StageFailure where it cannot be computed; StoreError,
        KeyboardInterrupt and SystemExit(143) as `alignfirst.run` does. What was computed until then is kept.
        """
        todo, refused = nodes.keys() - self.store.keys(), set[str]()
        loaded = load_world(world)
        schedule = Schedule(nodes, todo, loaded, lambda node: 1.0)
        if todo:
            with terminable():
                refused = self._execute(schedule, loaded, world, len(todo))
            self.store.refresh()
        if schedule.failures:
            key, reason = next(iter(schedule.failures.items()))
            raise RefusedError(reason) if key in refused else StageFailure(reason)
        return self.store.get_many(wanted)

    def _execute(self, schedule: Schedule, world: World, name: str, total: int) -> set[str]:
        """Work off the schedule; keys of nodes that refused an input."""
        refused: set[str] = set()

        def on_report(task: Task, report: Report, worker: int, busy: int) -> None:
            refused.update(report.refused)
            if self.progress is not None:
                self.progress(schedule.settled, total, task.kind, busy)

        execute(schedule, world, name, self.store, self.options, on_report)
        return refused
