"""What work costs before it is done: seconds on one core, tokens, operations, disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from alignfirst.costs.hardware import gpu_hours
from alignfirst.costs.price import Price
from alignfirst.nodes import Node
from alignfirst.world import World


class NodeSeconds:
    """Seconds of a node on one core: what earlier tasks of a run directory took, or else what its price says.

    `nodes`: of the plan, by key. `timings`: lines of timings.jsonl.
    """

    def __init__(self, world: World, nodes: Mapping[str, Node], timings: Iterable[Mapping[str, Any]] = ()) -> None:
        self.world, self.nodes = world, nodes
        seen: dict[tuple[str, str], list[float]] = {}
        for line in timings:
            if line["nodes"] > 0:
                for name in {line["label"], ""}:  # "" collects every label of a kind
                    seen.setdefault((line["kind"], name), []).append(line["seconds"] / line["nodes"])
        # Not the mean: the first task of a worker may include minutes of compilation
        self._measured = {key: median(values) for key, values in seen.items()}

    def __call__(self, node: Node) -> float:
        for key in ((node.kind, node.label), (node.kind, "")):
            if key in self._measured:
                return self._measured[key]
        return self.world.seconds(self.world.price(node, self.nodes))


@dataclass(frozen=True)
class StageEstimate:
    """Nodes of one kind in a plan: how many there are, how many are stored, seconds on one core for the rest."""

    kind: str
    total: int
    cached: int
    seconds: float

    @property
    def to_run(self) -> int:
        return self.total - self.cached


@dataclass(frozen=True)
class CostLine:
    """Nodes of one kind and label (the algorithm of an alignment), and what they cost together."""

    kind: str
    label: str
    nodes: int
    price: Price


@dataclass(frozen=True)
class CostEstimate:
    """What is left of a plan. `lines` in its order; `unit`: of what passes through models; `notes` say what a smaller
    scale would show; `gpus` are those on which the world could run."""

    lines: tuple[CostLine, ...]
    unit: str = "tokens"
    notes: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()

    @property
    def total(self) -> Price:
        return sum((line.price for line in self.lines), Price())

    @property
    def gpu_hours(self) -> dict[str, float]:
        """Hours of one GPU by its name, at the assumed utilisation."""
        return {gpu: gpu_hours(self.total, gpu) for gpu in self.gpus}


def estimate_stages(nodes: Mapping[str, Node], stored: set[str], seconds: NodeSeconds) -> list[StageEstimate]:
    """Per kind, in the order of the plan, what there is and what is left to do."""
    found: dict[str, StageEstimate] = {}
    for key, node in nodes.items():
        old, have = found.get(node.kind, StageEstimate(node.kind, 0, 0, 0.0)), key in stored
        took = old.seconds if have else old.seconds + seconds(node)
        found[node.kind] = StageEstimate(node.kind, old.total + 1, old.cached + have, took)
    return list(found.values())


def estimate_cost(world: World, config: object, nodes: Mapping[str, Node], keys: Iterable[str]) -> CostEstimate:
    """The cost of some of a plan's nodes."""
    lines: dict[tuple[str, str], CostLine] = {}
    for key in keys:
        node = nodes[key]
        at = node.kind, node.label
        old = lines.get(at, CostLine(*at, 0, Price()))
        lines[at] = CostLine(*at, old.nodes + 1, old.price + world.price(node, nodes))
    return CostEstimate(tuple(lines.values()), world.unit, tuple(world.scaled_down(config)), tuple(world.gpus))
