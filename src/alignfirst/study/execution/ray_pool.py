"""A pool of Ray tasks. A task is the JSON that a local worker gets, and returns keys and digests: truth is the store.

The run directory must be on a file system that all nodes share, alignfirst on all of them. A task whose node or worker
process died is given to another by Ray; a driver that died is started again and skips what is stored.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from alignfirst.errors import AlignfirstError, InputError, Terminated, shorten
from alignfirst.module_search import PYTHONPATH, safe_path
from alignfirst.process_environment import USER_MODULES
from alignfirst.signals import handlers_kept
from alignfirst.store import Store
from alignfirst.study.execution.cancel_file import CancelFile, interruptible, is_requested
from alignfirst.study.execution.options import Cluster, available_cores
from alignfirst.study.execution.pool import GRACE, THREAD_LIMITS, Outcome
from alignfirst.study.execution.worker import Report, Task, load_world, message, serve
from alignfirst.world import World

log = logging.getLogger(__name__)

ADDRESS = "RAY_ADDRESS"
RETRIES = 3  # by Ray, of a task whose node or worker process died, before it counts as a death of that task
OBJECT_STORE = 100 << 20  # bytes of a cluster of our own; tasks and reports are a few kB
PATIENCE = 10.0  # seconds in which the head node must take a connection
LAG = 60.0  # seconds that one node's files may take to be seen by another
# No telemetry, and patience with a machine under load. Of a cluster of our own; others have settings of their own.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
}


class RayPool:
    """Tasks on a cluster, as many at once as it has room for, at most `limit`."""

    def __init__(self, reference: str, store: Store, limit: int, cluster: Cluster, checkpoint_seconds: float) -> None:
        self.store, self.limit, self.cluster = store, limit, cluster
        self._tasks: dict[Any, tuple[Task, int]] = {}  # by what Ray calls them, with a number as workers have
        self._asked, self._slots = -1.0, 1
        self._temporary = Path(tempfile.mkdtemp(prefix="alignfirst-ray-", dir="/tmp"))  # paths of sockets are short
        try:
            self.ray = connect(cluster, limit, self._temporary)
        except BaseException:
            self._forget()
            raise
        threads = dict.fromkeys(THREAD_LIMITS, str(max(1, int(cluster.cpus))))
        self._function = self.ray.remote(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            max_retries=RETRIES,
            runtime_env={"env_vars": {**threads, PYTHONPATH: own_paths(), USER_MODULES: os.getcwd()}},
        )(compute)
        self.cancel = CancelFile(store.root.absolute())
        self._start = {
            "world": reference,
            "store": str(store.root.absolute()),
            "seconds": checkpoint_seconds,
            "cancel": str(self.cancel.path),
            "paths": sys.path,
        }

    @property
    def slots(self) -> int:
        """How many tasks fit at once; nodes may join and leave. Where none does, one waits for a node: 1."""
        if time.monotonic() - self._asked > 1.0:
            self._asked = time.monotonic()
            found = sum(slots_of(node["Resources"], self.cluster) for node in self.ray.nodes() if node["Alive"])
            if not found and self._slots:
                need = f"{self.cluster.cpus:g} cores and {self.cluster.gpus:g} GPUs"
                log.warning("note: no node of the cluster has %s, which a task takes; waiting for one that has.", need)
            self._slots = found
        return max(1, self._slots)

    @property
    def idle(self) -> int:
        return max(0, min(self.slots, self.limit) - self.busy)

    @property
    def busy(self) -> int:
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        number = min(set(range(self.busy + 1)) - {number for _, number in self._tasks.values()})
        given = self._function.remote(json.dumps({**self._start, "message": message(task)}))
        self._tasks[given] = task, number

    def wait(self) -> Outcome:
        """The first task that is done. Raises AlignfirstError where it raised what no node may."""
        given, failed = self._first(), self.ray.exceptions
        task, number = self._tasks.pop(given)
        try:
            report = Report(**json.loads(self.ray.get(given)))
        except (failed.RayTaskError, failed.RuntimeEnvSetupError) as e:
            raise AlignfirstError(f"a Ray task failed: {last_line(e)}") from e
        except failed.RayError as e:  # all retries were lost
            return Outcome(task, number, None, f"{type(e).__name__} of Ray")
        wait_until_visible(self.store, report.digests)
        return Outcome(task, number, report)

    def _first(self) -> Any:
        try:
            while not (done := self.ray.wait(list(self._tasks), num_returns=1, timeout=1.0)[0]):
                pass
        except SystemExit as e:  # what a handler of SIGTERM raised, which Ray has turned into exit code 1
            raise Terminated from e
        return done[0]

    def interrupt(self) -> None:
        """Tell the tasks to leave, and wait for them, not for long."""
        self.cancel.request()
        if self._tasks:
            self.ray.wait(list(self._tasks), num_returns=self.busy, timeout=GRACE)

    def close(self) -> None:
        """Leave the cluster, which then ends what this driver has under way."""
        self.ray.shutdown()
        self._forget()
        self.cancel.close()
        self._tasks.clear()

    def _forget(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def wait_until_visible(store: Store, keys: Iterable[str]) -> None:
    """Raise AlignfirstError for artefacts that a node says are stored and that cannot be seen here after a while."""
    if missing := count_invisible(store, keys):
        cure = f"Put {store.root} on a file system that all nodes of the cluster share."
        raise AlignfirstError(f"{missing} artefacts were stored on another node and cannot be seen here. {cure}")


def connect(cluster: Cluster, limit: int, temporary: Path) -> Any:
    """Ray, connected to a cluster, or to one that is started here; without telemetry and dashboard.

    Raises InputError where no cluster answers.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    ray = import_module("ray")
    inner: Any = import_module("ray._private.worker")
    inner.print_to_stdstream = print_ray_messages
    address = cluster.address or os.environ.get(ADDRESS)
    own = {
        "num_cpus": max(1, int(min(available_cores(), limit * cluster.cpus))),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE,
        "_temp_dir": str(temporary),
    }
    try:
        with handlers_kept():  # Ray's own handler of SIGTERM would end the driver
            check_port(address)
            ray.init(
                address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **isolated(ray, address),
                **({} if address else own),
            )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as e:
        if address is None:
            raise AlignfirstError(f"Ray could not start on this machine: {last_line(e)}") from e
        cure = "Start one with `ray start --head`, or leave --ray-address (RAY_ADDRESS) out to start one here."
        raise InputError("a Ray cluster must answer at the address", f"{address} ({last_line(e)})", cure) from e
    return ray


class NoFolders(list[str]):
    """The folders that Ray puts before all others in its workers: its driver's current directory is none of them."""

    def extend(self, _: Iterable[str]) -> None:
        pass


def isolated(ray: Any, address: str | None) -> dict[str, Any]:
    """Settings of `ray.init` that keep files beside the driver from being imported by tasks.

    Through a Ray client (`ray://`) Ray adds no folder by itself.
    """
    if (address or "").startswith("ray://"):
        return {}
    settings = ray.job_config.JobConfig()
    settings._py_driver_sys_path = NoFolders()
    return {"job_config": settings}


def check_port(address: str | None) -> None:
    """Raise OSError where nobody listens at an address with a port: Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def print_ray_messages(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """What Ray says of lost nodes and the like, in one line on stderr. Itself it prints pages of it on stdout, among
    the results, and has no setting for that."""
    for text in data.get("lines", ()):
        log.warning("note: Ray: %s", shorten(" ".join(str(text).split()), 160))


def slots_of(resources: dict[str, float], cluster: Cluster) -> int:
    """How many tasks fit into a node's resources."""
    needs = (("CPU", cluster.cpus), ("GPU", cluster.gpus))
    return int(min(resources.get(name, 0.0) // need for name, need in needs if need > 0))


def own_paths() -> str:
    """Where this process finds modules that are not installed, by `safe_path`."""
    places = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    mine = [path for path in safe_path() if not any(Path(path).is_relative_to(place) for place in places)]
    return os.pathsep.join(path for path in mine if not path.endswith(".zip"))


def count_invisible(store: Store, keys: Iterable[str], lag: float = LAG) -> int:
    """How many of the keys cannot be seen even after a while: a shared file system may be behind."""
    wanted, end = list(keys), time.monotonic() + lag
    while missing := [key for key in wanted if not store.has(key)]:
        store.refresh()
        if time.monotonic() > end:
            return len(missing)
        if any(not store.has(key) for key in missing):
            time.sleep(0.2)
    return 0


def last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return shorten(lines[-1].strip(), 200) if lines else type(error).__name__


# -- on a node ------------------------------------------------------------------------------------------------------


def compute(text: str) -> str:
    """One task: what a local worker does with a line. Where its driver leaves, nobody reads what it returns."""
    start = json.loads(text)
    try:
        with interruptible(Path(start["cancel"])):
            world, store = open_once(start["world"], start["store"], tuple(start["paths"]))
            count_invisible(store, {key for node in start["message"]["nodes"] for key in node[2].values()})
            return json.dumps(asdict(serve(world, store, start["message"], start["seconds"])))
    except KeyboardInterrupt as e:
        if not is_requested(Path(start["cancel"])):
            raise AlignfirstError("user code raised KeyboardInterrupt") from e
        return ""


@cache
def open_once(world: str, store: str, paths: tuple[str, ...]) -> tuple[World, Store]:
    """World and store, opened once a process: an index of many shards takes a while to read."""
    return load_world(world, paths), Store(store)
