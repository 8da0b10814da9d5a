"""Work of an audit on a Ray cluster: what nodes scored and drew is in the audit's cache, as if computed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst.auditing.collect import Job, work
from alignfirst.cli.audited import LanguageModel, load_model
from alignfirst.errors import AlignfirstError
from alignfirst.nodes import Artefact
from alignfirst.store import Store
from alignfirst.study.execution.ray_pool import Nodes, wait_until_visible

if TYPE_CHECKING:
    from alignfirst.study.execution.options import Cluster

ROWS = 1000  # responses a task
PATIENCE = 3  # times that a task is given anew after Ray has given it up


class OnCluster:
    """Does jobs on a cluster, which it is connected to only where there are any. Ended by `close`."""

    def __init__(self, cluster: Cluster, store: Store, say: Callable[[str, int, int], None]) -> None:
        self.cluster, self.store, self.say = cluster, store, say
        self.nodes: Nodes | None = None

    def __call__(self, model: Any, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        if self.nodes is None:
            self.nodes = Nodes(self.cluster, 1 << 20, carry_out)
        place = Path(model.name)
        start = {
            "model": str(place.absolute()) if place.exists() else model.name,
            "identity": model.identity,
            "store": str(self.store.root.absolute()),
        }
        tasks = {self.nodes.submit(text): (text, 0) for text in map(json.dumps, _tasks(start, jobs))}
        of, done = len(tasks), 0
        try:
            while tasks:
                given = self.nodes.wait_for_one(tasks)
                text, tried = tasks.pop(given)
                try:
                    keys = json.loads(self.nodes.result(given))
                except self.nodes.lost as e:
                    if tried == PATIENCE:
                        raise AlignfirstError(f"a task was lost {tried + 1} times: {type(e).__name__} of Ray") from e
                    tasks[self.nodes.submit(text)] = text, tried + 1
                    continue
                wait_until_visible(self.store, keys)
                done += 1
                self.say(f"tasks of {model.name} on the cluster", done, of)
        except BaseException:
            self.nodes.close()
            self.nodes = None
            raise

    def close(self) -> None:
        if self.nodes is not None:
            self.nodes.close()


def _tasks(start: dict[str, str], jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    """Jobs in order, in tasks of about ROWS responses."""
    some: list[Job] = []
    for job in jobs:
        if some and sum(j.size for j in some) + job.size > ROWS:
            yield {**start, "jobs": some}
            some = []
        some.append(job)
    yield {**start, "jobs": some}


# -- on a node ------------------------------------------------------------------------------------------------------


def carry_out(text: str) -> str:
    """Do a task's jobs, store each, return their keys."""
    start = json.loads(text)
    model, store = loaded(start["model"]), Store(start["store"])
    if model.identity != start["identity"]:
        raise AlignfirstError(f"{start['model']} is another model on this node ({model.identity})")
    jobs = [Job(*job) for job in start["jobs"]]
    store.put_many([(job.key, Artefact(work(model, job))) for job in jobs if not store.has(job.key)])
    return json.dumps([job.key for job in jobs])


@cache
def loaded(name: str) -> LanguageModel:
    """Once a process."""
    return load_model(name)
