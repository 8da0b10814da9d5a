"""Where this process computes, and in which precision matrices are multiplied there."""

from __future__ import annotations

import time
from functools import lru_cache

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


@lru_cache(maxsize=1)
def core_speed() -> float:
    """Floating-point operations a second that training gets out of one core: half of what a matrix product does.

    Of processor time: what else this machine has to do now says nothing of the hours to come.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, times = torch.ones(512, 512), 8
        a @ a
        begin = time.process_time()
        for _ in range(times):
            a @ a
        return 0.5 * times * 2 * 512**3 / (time.process_time() - begin)
    finally:
        torch.set_num_threads(threads)
