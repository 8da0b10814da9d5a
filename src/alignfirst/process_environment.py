"""What the processes of a run are told through their environment; written and read here only.

Launchers (`accelerate launch`, torchrun) say how many processes there are and which one this is, the engine numbers its
workers, and `write` passes on what `ExecutionOptions` say to processes that know nothing but their environment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from alignfirst.errors import InputError

SHARD = "ALIGNFIRST_SHARD"
PROCESSES = "ALIGNFIRST_PROCESSES"  # before a launcher says WORLD_SIZE
TRACKERS, TRACKER_FOLDER = "ALIGNFIRST_REPORT_TO", "ALIGNFIRST_REPORT_DIR"  # names with commas between; for their files
USER_MODULES = "ALIGNFIRST_USER_MODULES"  # the folder that a user's own modules are in
WORKER = "ALIGNFIRST_WORKER"  # number of a worker of the engine, from 0
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR")  # what launchers tell their processes
FSDP, DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"  # set by `accelerate launch` under such a profile
FSDP_KEYS = {  # of a profile, as `accelerate launch` passes it on: the variable, its key, and the value that can be had
    "FSDP_VERSION": ("fsdp_version", "2"),
    "FSDP_RESHARD_AFTER_FORWARD": ("fsdp_reshard_after_forward", "false"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "false"),
}


def write(processes: int, shard: bool, trackers: Sequence[str], folder: Path) -> None:
    """Tell this process's rooms and the processes that it starts what `ExecutionOptions` say, and nothing older."""
    values = {
        PROCESSES: str(processes) if processes > 1 else "",
        SHARD: "1" if shard else "",
        TRACKERS: ",".join(trackers),
        TRACKER_FOLDER: str(folder.absolute()) if trackers else "",
    }
    if trackers:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", values[TRACKER_FOLDER])  # where TRL's would write
    for name, value in values.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def launched() -> int:
    """How many processes a launcher has started for this run; 1 where there was none."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in LAUNCHED) else 1


def leads() -> bool:
    """Whether this is the first of them."""
    return launched() < 2 or os.environ["RANK"] == "0"


def local_number() -> int:
    """Which process of this machine this is, from 0, by the launcher or else by the engine."""
    return next((int(os.environ[name]) for name in ("LOCAL_RANK", WORKER) if name in os.environ), 0)


def processes() -> int:
    """How many processes train a model together, or will once they are launched."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get(PROCESSES) or "1")


def sharded() -> bool:
    """Whether processes share out gradients, too, not only moments."""
    return any(_true(name) for name in (SHARD, FSDP))


def numbers_per_weight() -> float:
    """Numbers that one process holds for every weight of a training: weight, gradient, and AdamW's two moments."""
    return 1.0 + 1.0 / (processes() if sharded() else 1) + 2.0 / processes()


def user_modules() -> Path:
    """The folder that a user's own modules are in: where the command was started, on a cluster too."""
    return Path(os.environ.get(USER_MODULES, ""))


def trackers() -> list[str]:
    """Names of the trackers that are to watch trainings."""
    return [name for name in os.environ.get(TRACKERS, "").split(",") if name]


def tracker_folder() -> str | None:
    """Where their files go."""
    return os.environ.get(TRACKER_FOLDER)


def check_profile() -> None:
    """Raise InputError for a launcher's profile that asks for what is not done here, such as weights in parts."""
    if _true(DEEPSPEED):
        cure = "Launch it without; --shard shares out gradients and moments, see docs/scaling.md."
        raise InputError("processes of a run know no DeepSpeed", f"{DEEPSPEED}=true", cure)
    if not _true(FSDP):
        return
    for variable, (key, value) in FSDP_KEYS.items():
        found = os.environ.get(variable, value)
        if found.lower() != value:
            cure = f"Set {key}: {value}, as examples/fsdp.yaml does: every process holds whole weights."
            raise InputError("an FSDP profile shards gradients and moments, not weights", f"{key}: {found}", cure)


def _true(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")
