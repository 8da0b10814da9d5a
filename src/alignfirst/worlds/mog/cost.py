"""What work on mixtures costs: points that are drawn and scored, and floating-point operations of that, by formula."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from alignfirst.costs.price import Price
from alignfirst.nodes import Node
from alignfirst.theory.objectives import ALGORITHMS

# Operations a point and component: density with its exponential, and the score's five sums.
DENSITY, SCORE = 30, 14
MEASURED = 241**2  # cells of the grid that measurements integrate over
PREDICTED, STEPS = 121**2, 20  # cells of the grid of predictions, and steps of EM on it, about
EM_STEPS = 16  # of a restart before EM gains no more, about: 15 and 16 in mog-quick
BYTES = 4 * 5  # of a component in the store: five numbers in float32

Nodes = Mapping[str, Node]


def fit(samples: int, components: int, iterations: float) -> Price:
    """EM: every iteration looks at every sample."""
    return Price(samples, trained=iterations * samples, training=iterations * samples * components * (DENSITY + SCORE))


def align(updates: int, samples: int, components: int, drawn: int, reference: int) -> Price:
    """`updates` on `samples` points each; those `drawn` are scored by a reference of so many components."""
    training = updates * samples * components * (DENSITY + SCORE)
    return Price(drawn, scored=drawn, trained=updates * samples, scoring=drawn * reference * DENSITY, training=training)


def price(node: Node, nodes: Nodes) -> Price:
    """The cost of one node, but for when EM ends; `nodes` holds its inputs, and theirs, by key."""
    s = node.settings
    if node.kind in ("sft", "distil"):
        f = s["fit"]
        return fit(f["samples"], f["components"], f["restarts"] * min(f["iterations"], EM_STEPS)) + _stored(
            f["components"]
        )
    if node.kind == "align":
        components, reference = (_components(nodes[node.inputs[role]], nodes) for role in ("initial", "reference"))
        return align(s["updates"], s["samples"], components, _drawn(node), reference) + _stored(components)
    if node.kind == "measure":
        judges = sum(_components(nodes[key], nodes) for key in node.inputs.values())
        return Price(scored=MEASURED * len(node.inputs), scoring=MEASURED * judges * DENSITY)
    sft = _components(nodes[node.inputs["sft"]], nodes)
    if node.kind == "predict":
        cells = PREDICTED * (1 + len(s["stages"]))
        return Price(scored=cells, scoring=cells * sft * (DENSITY + SCORE) * STEPS)
    models = set(node.inputs.values())
    judges = sum(sft + _components(nodes[key], nodes) for key in models)
    return Price(s["samples"] * len(models), s["samples"] * len(models), scoring=s["samples"] * judges * DENSITY)


def _drawn(node: Node) -> int:
    """Points that an alignment draws."""
    s, method = node.settings, ALGORITHMS[node.settings["algorithm"]]
    if method.data == "pairs-offline":
        return int(2 * s["pairs"])
    return int(ceil(s["updates"] / s.get("epochs", 1)) * s["samples"])


def _components(node: Node, nodes: Nodes) -> int:
    """Of the mixture that a node makes."""
    if node.kind == "align":
        return _components(nodes[node.inputs["initial"]], nodes)
    return int(node.settings["fit"]["components"])


def _stored(components: int) -> Price:
    return Price(stored=BYTES * components)
