"""How a study is computed: in which processes, and under which conditions. None of it changes what comes out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from alignfirst import process_environment
from alignfirst.errors import InputError

CHECKPOINT_SECONDS = 30.0  # between checkpoints of a long stage
EVERYWHERE = 1 << 20  # tasks at once: as many as a cluster has room for


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a task takes of it. Without an address it is the one of RAY_ADDRESS, else one that is
    started on this machine for as long as the run takes.

    `cpus` >= 0.01 cores, `gpus` >= 0, whole above 1. Raises InputError for others, and where Ray is not installed.
    """

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
class ExecutionOptions:
    """How a study is computed. Raises InputError for values out of range and for options that exclude each other.

    workers: processes, by default one an available core, all with the same bytes; 0 computes in this process, for
        debuggers (a BLAS with several threads may then differ in the last digit). On a cluster they are the tasks at
        once, >= 1, by default as many as it has room for.
    strict: refuse a study of files of one's own that gives reason for a warning.
    require_go: train no alignment before its audit said go.
    checkpoint_seconds: >= 0; a stage that takes longer keeps what it has done so far, every so many seconds.
    cluster: a Ray cluster instead of processes of this machine.
    processes: how many share every training, started together by a launcher, as the command does; without workers and
        cluster.
    shard: they share out gradients and AdamW's moments, as FSDP does; moments alone without it.
    trackers: names (wandb, tensorboard, ...) of those that watch trainings of user models.
    """

    workers: int | None = None
    strict: bool = False
    require_go: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cluster: Cluster | None = None
    processes: int = 1
    shard: bool = False
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            cure = "30 is the default; a large number means never."
            raise InputError("checkpoints must be 0 or more seconds apart", self.checkpoint_seconds, cure)
        if self.workers is not None and self.workers < 0:
            raise InputError("workers must be >= 0", self.workers, "Use 1 or more; 0 computes in this process.")
        if self.cluster is not None and self.workers == 0:
            cure = "Leave them out to use all of the cluster."
            raise InputError("workers on a cluster must be >= 1", self.workers, cure)
        if self.processes < 1:
            raise InputError(
                "--processes must be >= 2 to share a training", self.processes, "For example --processes 2."
            )
        if self.shard and max(self.processes, process_environment.launched()) < 2:
            cure = "For example --processes 8 --shard."
            raise InputError("--shard goes with --processes", self.processes, cure)
        if self.processes > 1 and (self.cluster is not None or self.workers is not None):
            cure = "Tasks of a Ray cluster and workers have a process each: leave --processes out, or the others."
            raise InputError("--processes goes without --engine ray and --workers", self.processes, cure)

    @property
    def tasks_at_once(self) -> int:
        """How many tasks are computed at once, at most; 0 for this process alone."""
        everything = available_cores() if self.cluster is None else EVERYWHERE
        return everything if self.workers is None else self.workers

    def write_environment(self, out: Path) -> None:
        """Pass on what processes of a run in `out` are told through their environment."""
        process_environment.write(self.processes, self.shard, self.trackers, out / "trackers")


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
