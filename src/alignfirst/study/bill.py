"""What a study costs by formula before it is run: tokens, operations, hours of named GPUs, disk. Nothing is measured.

Only worlds that can tell (`World.price`) get one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alignfirst.nodes import Node
from alignfirst.world import Price, World

# Dense peaks in bfloat16 without sparsity, operations a second, from the makers' data sheets
GPUS: Mapping[str, float] = {"H100 SXM 80 GB": 989e12, "A100 80 GB": 312e12, "L40S 48 GB": 362e12}
# The share of that peak which is assumed to be reached. Sampling goes token by token and waits for memory and for
# Python, not for arithmetic; training runs in TF32, whose peak is half of bfloat16's. Assumptions, not measurements.
UTILISATION: Mapping[str, float] = {"sampling": 0.02, "scoring": 0.3, "training": 0.2}


@dataclass(frozen=True)
class Line:
    """Nodes of one kind and label (the algorithm of an alignment)."""

    kind: str
    label: str
    nodes: int
    price: Price


@dataclass(frozen=True)
class Bill:
    """`lines` in the order of the plan; `notes` say what a smaller scale would show."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> Price:
        return sum((line.price for line in self.lines), Price())

    def hours(self, gpu: str) -> float:
        """Hours of one GPU of that name at the assumed utilisation."""
        total = self.total
        seconds = sum(float(getattr(total, kind)) / share for kind, share in UTILISATION.items()) / GPUS[gpu]
        return seconds / 3600


def bill(world: World, config: object, nodes: Mapping[str, Node], keys: Iterable[str]) -> Bill | None:
    """The bill of some of a plan's nodes; None where the world cannot tell."""
    lines: dict[tuple[str, str], Line] = {}
    for key in keys:
        node = nodes[key]
        at, price = (node.kind, line_label(node)), world.price(node, nodes)
        if price is None:
            return None
        old = lines.get(at, Line(*at, 0, Price()))
        lines[at] = Line(*at, old.nodes + 1, old.price + price)
    return Bill(tuple(lines.values()), tuple(world.scaled_down(config)))


def line_label(node: Node) -> str:
    """What nodes of a kind are told apart by: the algorithm, or what texts are drawn for."""
    return str(node.settings.get("algorithm") or node.settings.get("purpose") or "")
