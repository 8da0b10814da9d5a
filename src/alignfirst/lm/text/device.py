"""Where this process computes, and in which precision matrices are multiplied there."""

from __future__ import annotations

import torch

from alignfirst.process_environment import local_number


def local_device() -> str:
    """This process's device: `cuda:N`, N by the process's number on this machine, or `cpu` where there is no GPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{local_number() % torch.cuda.device_count()}"


def enable_tf32() -> None:
    """Let GPUs multiply float32 matrices in TF32 (10 bits of mantissa, weights stay in float32), for this process.

    The world `chain` does, as the paper's chain is trained; user models are computed as precisely as they are stored.
    On a CPU nothing changes.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
