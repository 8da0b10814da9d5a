"""Where this process computes, and in which precision matrices are multiplied there."""

from __future__ import annotations

import os

import torch

NUMBERS = ("LOCAL_RANK", "ALIGNFIRST_WORKER")  # of this process on its machine: from a launcher, or from the engine


def local_device() -> str:
    """This process's device: `cuda:N`, N by the process's number on this machine, or `cpu` where there is no GPU."""
    if not torch.cuda.is_available():
        return "cpu"
    number = next((int(os.environ[name]) for name in NUMBERS if name in os.environ), 0)
    return f"cuda:{number % torch.cuda.device_count()}"


def enable_tf32() -> None:
    """Let GPUs multiply float32 matrices in TF32 (10 bits of mantissa, weights stay in float32), for this process.

    The world `chain` does, as the paper's chain is trained; user models are computed as precisely as they are stored.
    On a CPU nothing changes.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
