"""Whether the processes of a run shard what they train: what `--shard` or a launcher's FSDP profile says."""

from __future__ import annotations

import os

from alignfirst.errors import InputError

OPTION = "ALIGNFIRST_SHARD"  # set by --shard
LAUNCHER = "ACCELERATE_USE_FSDP"  # set by `accelerate launch` under an FSDP profile
READ = {  # of a profile, as `accelerate launch` passes it on: the variable, its key, and the value that can be had
    "FSDP_VERSION": ("fsdp_version", "2"),
    "FSDP_RESHARD_AFTER_FORWARD": ("fsdp_reshard_after_forward", "false"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "false"),
}


def sharded() -> bool:
    """Gradients and moments are shared out over the processes."""
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in (OPTION, LAUNCHER))


def ask() -> None:
    """Shard in this process, and in those that it starts."""
    os.environ[OPTION] = "1"


def parts() -> int:
    """In how many parts gradients and moments are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if sharded() else 1


def check() -> None:
    """Raise InputError for a profile that asks for what is not done here, such as weights in parts."""
    if os.environ.get(LAUNCHER, "").lower() != "true":
        return
    for variable, (key, value) in READ.items():
        found = os.environ.get(variable, value)
        if found.lower() != value:
            cure = f"Set {key}: {value}, as examples/fsdp.yaml does: every process holds whole weights."
            raise InputError("an FSDP profile shards gradients and moments, not weights", f"{key}: {found}", cure)
