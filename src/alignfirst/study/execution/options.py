"""How a study is computed: on which processes and how long. Nothing here changes what comes out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec

from alignfirst.errors import InputError

CHECKPOINT_SECONDS = 30.0  # between checkpoints of a long stage


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
class ExecutionOptions:
    """What a study is computed with."""

    checkpoint_seconds: float = CHECKPOINT_SECONDS  # a stage that takes longer keeps what it has done so far
    cluster: Cluster | None = None  # None: processes of this machine

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            cure = "30 is the default; a large number means never."
            raise InputError("checkpoints must be 0 or more seconds apart", self.checkpoint_seconds, cure)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
