"""How long GPUs take for a price, by their makers' numbers and an assumed share of them. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Mapping

from alignfirst.costs.price import Price

# Dense peaks in bfloat16 without sparsity, operations a second, from the makers' data sheets
GPUS: Mapping[str, float] = {"H100 SXM 80 GB": 989e12, "A100 80 GB": 312e12, "L40S 48 GB": 362e12}
# The share of that peak which is assumed to be reached. Sampling goes token by token and waits for memory and for
# Python, not for arithmetic; training runs in TF32, whose peak is half of bfloat16's. Assumptions, not measurements.
UTILISATION: Mapping[str, float] = {"sampling": 0.02, "scoring": 0.3, "training": 0.2}


def gpu_hours(price: Price, gpu: str) -> float:
    """Hours of one GPU of that name, a key of `GPUS`, at the assumed utilisation."""
    seconds = sum(float(getattr(price, kind)) / share for kind, share in UTILISATION.items()) / GPUS[gpu]
    return seconds / 3600
