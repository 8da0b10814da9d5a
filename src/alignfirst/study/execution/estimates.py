"""What work costs: seconds before it is done, floating-point operations and samples after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from alignfirst.nodes import Node
from alignfirst.records import Row
from alignfirst.study.execution.worker import timing_label
from alignfirst.world import World


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


class Costs:
    """Seconds per node. Tasks that were timed in this directory count first, then what the world says of itself, or
    of this study (`stated`, by kind).

    A world that prices its nodes (`nodes` of the plan, by key) says how many operations it does a second on one core.
    """

    def __init__(
        self,
        world: World,
        timings: Iterable[Mapping[str, Any]] = (),
        nodes: Mapping[str, Node] | None = None,
        stated: Mapping[str, float] | None = None,
    ) -> None:
        self.world, self.nodes = world, nodes or {}
        self._stated = dict(stated or world.seconds_per_node)
        seen: dict[tuple[str, str], list[float]] = {}
        for line in timings:
            if line["nodes"] > 0:
                for name in {line["label"], ""}:  # "" collects every label of a kind
                    seen.setdefault((line["kind"], name), []).append(line["seconds"] / line["nodes"])
        # Not the mean: the first task of a worker may include minutes of compilation
        self._measured = {key: median(values) for key, values in seen.items()}

    def seconds(self, node: Node) -> float:
        """Seconds that this node takes on one core."""
        for key in ((node.kind, timing_label(node)), (node.kind, "")):
            if key in self._measured:
                return self._measured[key]
        price = self.world.price(node, self.nodes)
        if price is not None:
            return 1.0 + price.flops / self.world.operations_a_second
        return self._stated.get(node.kind) or 1.0 / max(1, self.world.batch_size(node))


def estimate(nodes: Mapping[str, Node], stored: Iterable[str], costs: Costs) -> list[StageEstimate]:
    """Per kind, in the order of the plan, what there is and what is left to do."""
    have = set(stored)
    totals: dict[str, list[float]] = {}
    for key, node in nodes.items():
        row = totals.setdefault(node.kind, [0, 0, 0.0])
        row[0] += 1
        if key in have:
            row[1] += 1
        else:
            row[2] += costs.seconds(node)
    return [StageEstimate(kind, int(n), int(cached), seconds) for kind, (n, cached, seconds) in totals.items()]


def stage_totals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Floating-point operations and samples summed per recipe, algorithm and stage. A stage shared by cells of one
    recipe and algorithm (the sft of a seed under every beta) counts once, for it is computed once.
    """
    totals: dict[tuple[Any, ...], dict[str, Any]] = {}
    counted: set[tuple[Any, ...]] = set()
    for row in rows:
        at = (row["recipe"], row["algorithm"], row["stage"], row["stage_index"])
        total = totals.setdefault(
            at,
            dict(zip(("recipe", "algorithm", "stage", "stage_index"), at, strict=True))
            | {"models": 0, "flops": 0.0, "samples": 0},
        )
        if row["status"] != "ok" or (*at, row["model"]) in counted:
            continue
        counted.add((*at, row["model"]))
        total["models"] += 1
        total["flops"] += row["flops"] or 0.0
        total["samples"] += row["samples"] or 0
    return list(totals.values())
