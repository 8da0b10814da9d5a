"""Options of commands that can work on a Ray cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.study.execution.options import Cluster


class Engine(StrEnum):
    """Where tasks are computed."""

    local = "local"
    ray = "ray"


Engines = Annotated[
    Engine, typer.Option("--engine", help="Where tasks are computed: on this machine, or on a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option("--ray-address", help="Of the cluster; by default RAY_ADDRESS, or one started on this machine."),
]
Cpus = Annotated[float, typer.Option("--task-cpus", help="Cores that a task takes of the cluster.")]
Gpus = Annotated[float, typer.Option("--task-gpus", help="GPUs that a task takes of the cluster.")]


def on_cluster(engine: Engine, address: str | None, cpus: float, gpus: float) -> Cluster | None:
    """The cluster that options ask for; None for this machine. Raises InputError where they do not go together."""
    from alignfirst.study.execution.options import Cluster

    if engine is Engine.ray:
        return Cluster(address, cpus, gpus)
    if address is not None or (cpus, gpus) != (1.0, 0.0):
        cure = "Add --engine ray."
        raise InputError("--ray-address, --task-cpus and --task-gpus are of a cluster", "--engine local", cure)
    return None
