"""What a dry run prints of a study's cost."""

from __future__ import annotations

from typing import Any

from alignfirst.cli import out
from alignfirst.study.bill import GPUS, UTILISATION, Bill

HEADER = ("stage", "for", "steps", "tokens sampled", "scored", "trained", "operations", "disk")


def show(bill: Bill) -> None:
    """Stages, their sum, GPU-hours, and what a smaller scale would show."""
    rows = [(x.kind, x.label, str(x.nodes), *_numbers(x.price)) for x in bill.lines]
    total = ("all", "", str(sum(x.nodes for x in bill.lines)), *_numbers(bill.total))
    out.table(HEADER, [*rows, total], right=HEADER[2:])
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in UTILISATION.items())
    for gpu in GPUS:
        hours = bill.hours(gpu)
        out.line(f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}", f"hours of one {gpu}")
    out.line(f"Hours assume these shares of the GPU's dense bfloat16 peak (not measured): {shares}.")
    for note in bill.notes:
        out.line(note)


def as_data(bill: Bill) -> dict[str, Any]:
    def numbers(price: Any) -> dict[str, Any]:
        return {
            "sampled": price.sampled,
            "scored": price.scored,
            "trained": price.trained,
            "flops": price.flops,
            "bytes": price.stored,
        }

    return {
        "stages": [{"kind": x.kind, "for": x.label, "steps": x.nodes} | numbers(x.price) for x in bill.lines],
        "total": numbers(bill.total),
        "gpu_hours": {gpu: round(bill.hours(gpu), 3) for gpu in GPUS},
        "assumed_utilisation": dict(UTILISATION),
        "notes": list(bill.notes),
    }


def _numbers(price: Any) -> tuple[str, ...]:
    counts = (price.sampled, price.scored, price.trained)
    return (*(f"{n:,}" for n in counts), f"{price.flops:.3g}", _bytes(price.stored))


def _bytes(n: int) -> str:
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
    return next((f"{n / size:.1f} {unit}" for unit, size in units if n >= size), f"{n / 1e3:.1f} kB")
