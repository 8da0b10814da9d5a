"""What a dry run prints of a study's cost."""

from __future__ import annotations

from typing import Any

from alignfirst.cli import out
from alignfirst.costs.hardware import UTILISATION
from alignfirst.costs.price import Price
from alignfirst.study.execution.estimates import CostEstimate


def show(cost: CostEstimate) -> None:
    """Stages, their sum, GPU-hours, and what a smaller scale would show."""
    header = ("stage", "for", "steps", f"{cost.unit} sampled", "scored", "trained", "operations", "disk")
    rows = [(x.kind, x.label, str(x.nodes), *_numbers(x.price)) for x in cost.lines]
    total = ("all", "", str(sum(x.nodes for x in cost.lines)), *_numbers(cost.total))
    out.table(header, [*rows, total], right=header[2:])
    for gpu, hours in cost.gpu_hours.items():
        out.line(f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}", f"hours of one {gpu}")
    if cost.gpus:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in UTILISATION.items())
        out.line(f"Hours assume these shares of the GPU's dense bfloat16 peak (not measured): {shares}.")
    for note in cost.notes:
        out.line(note)


def as_data(cost: CostEstimate) -> dict[str, Any]:
    return {
        "stages": [{"kind": x.kind, "for": x.label, "steps": x.nodes} | _plain(x.price) for x in cost.lines],
        "total": _plain(cost.total),
        "unit": cost.unit,
        "gpu_hours": {gpu: round(hours, 3) for gpu, hours in cost.gpu_hours.items()},
        "assumed_utilisation": dict(UTILISATION),
        "notes": list(cost.notes),
    }


def _plain(price: Price) -> dict[str, float]:
    tokens: dict[str, float] = price.counted()["tokens"]
    return tokens | {"flops": price.flops, "bytes": round(price.stored)}


def _numbers(price: Price) -> tuple[str, ...]:
    counts = (price.sampled, price.scored, price.trained)
    return (*(f"{n:,.0f}" for n in counts), f"{price.flops:.3g}", _bytes(price.stored))


def _bytes(n: float) -> str:
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
    return next((f"{n / size:.1f} {unit}" for unit, size in units if n >= size), f"{n / 1e3:.1f} kB")
