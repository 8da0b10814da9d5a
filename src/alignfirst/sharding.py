"""What processes of a run share out: what `--processes`, `--shard` or a launcher and its FSDP profile say."""

from __future__ import annotations

import os

from alignfirst.errors import InputError

OPTION = "ALIGNFIRST_SHARD"  # set by --shard
PROCESSES = "ALIGNFIRST_PROCESSES"  # set by --processes, before a launcher says WORLD_SIZE
LAUNCHER = "ACCELERATE_USE_FSDP"  # set by `accelerate launch` under an FSDP profile
READ = {  # of a profile, as `accelerate launch` passes it on: the variable, its key, and the value that can be had
    "FSDP_VERSION": ("fsdp_version", "2"),
    "FSDP_RESHARD_AFTER_FORWARD": ("fsdp_reshard_after_forward", "false"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "false"),
}


def sharded() -> bool:
    """Gradients are shared out, too, not only moments."""
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in (OPTION, LAUNCHER))


def ask(processes: int, shard: bool) -> None:
    """So many processes, in this one's words and in those that it starts, and gradients shared out or whole."""
    os.environ[PROCESSES] = str(processes)
    if shard:
        os.environ[OPTION] = "1"


def processes() -> int:
    """How many train a model together."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get(PROCESSES) or "1")


def held() -> float:
    """Numbers that one process holds for every weight of a training: weight, gradient, and AdamW's two moments."""
    return 1.0 + 1.0 / (processes() if sharded() else 1) + 2.0 / processes()


def check() -> None:
    """Raise InputError for a profile that asks for what is not done here, such as weights in parts."""
    if os.environ.get(LAUNCHER, "").lower() != "true":
        return
    for variable, (key, value) in READ.items():
        found = os.environ.get(variable, value)
        if found.lower() != value:
            cure = f"Set {key}: {value}, as examples/fsdp.yaml does: every process holds whole weights."
            raise InputError("an FSDP profile shards gradients and moments, not weights", f"{key}: {found}", cure)
