"""Artefacts of nodes that audits ask for, kept between audits: what is stored is read, the rest is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alignfirst.errors import StageFailure
from alignfirst.files import default_cache
from alignfirst.nodes import Artefact, Node
from alignfirst.signals import terminable
from alignfirst.store import Store
from alignfirst.study.execution.engine import OnReport, Progress, execute
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task, load_world

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

        Raises StageFailure where a node cannot be computed; StoreError, KeyboardInterrupt and SystemExit(143) as
        `alignfirst.run` does. What was computed until then is kept.
        """
        todo = nodes.keys() - self.store.keys()
        loaded = load_world(world)
        schedule = Schedule(nodes, todo, loaded, lambda node: 1.0)
        if todo:
            with terminable():
                execute(schedule, loaded, world, self.store, self.options, self._report(schedule, len(todo)))
            self.store.refresh()
        if schedule.failures:
            raise StageFailure(next(iter(schedule.failures.values())))
        return self.store.get_many(wanted)

    def _report(self, schedule: Schedule, total: int) -> OnReport:
        def on_report(task: Task, report: Report, worker: int, busy: int) -> None:
            if self.progress is not None:
                self.progress(schedule.settled, total, task.kind, busy)

        return on_report
