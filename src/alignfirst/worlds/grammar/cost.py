"""What a node costs, from its settings alone; what its training was counted to cost is the same."""

from __future__ import annotations

from collections.abc import Mapping

from alignfirst.costs.price import Price
from alignfirst.costs.training import alignment, distillation, probe_every, updates_on
from alignfirst.costs.transformer import TransformerSize
from alignfirst.nodes import Node
from alignfirst.theory.objectives import ALGORITHMS

PROMPT = 1  # tokens: the mark of a prompt
Nodes = Mapping[str, Node]


def price(node: Node, nodes: Nodes) -> Price:
    """The cost of one node; `nodes` holds its inputs, and theirs, by key."""
    s, new = node.settings, int(node.settings["p_star"]["length"])
    if node.kind == "measure":
        return _texts(node, nodes, new)
    if node.kind == "audit":
        sft, total = size(nodes[node.inputs["sft"]], nodes), Price()
        for key in set(node.inputs.values()):
            model = size(nodes[key], nodes)
            total += model.sample(s["samples"], PROMPT, new) + _judged(sft, s["samples"], new)
        return total
    model = size(node, nodes)
    stored = Price(stored=4 * model.parameters)
    if node.kind == "sft":
        return updates_on(model, s["steps"], s["batch"], None, PROMPT + new, new) + stored
    if node.kind == "distil":
        return distillation(s, size(nodes[node.inputs["teacher"]], nodes), model, PROMPT, new) + stored
    method, i = ALGORITHMS[s["algorithm"]], node.inputs
    reference = size(nodes[i["reference"]], nodes) if method.uses_reference else None
    source = size(nodes[i["pairs"]], nodes) if "pairs" in i else None
    probes = -(-s["updates"] // probe_every(s["updates"])) if method.data == "pairs-offline" else 0
    return alignment(s, model, reference, PROMPT, new, source, None, probes) + stored


def size(node: Node, nodes: Nodes) -> TransformerSize:
    """Of the model that a node makes."""
    if node.kind == "align":
        return size(nodes[node.inputs["initial"]], nodes)
    p, m = node.settings["p_star"], node.settings["model"]
    return TransformerSize.llama(p["words"] + len(p["target_weights"]), kv_heads=m["heads"], **m)


def _texts(node: Node, nodes: Nodes, new: int) -> Price:
    """The model's own texts under every model, and two kinds of held-out texts under the model."""
    n, model = node.settings["samples"], size(nodes[node.inputs["model"]], nodes)
    total = model.sample(n, PROMPT, new) + _judged(model, 2 * n, new)
    for role in ("sft", "reference"):
        if role in node.inputs:
            total += _judged(size(nodes[node.inputs[role]], nodes), n, new)
    return total


def _judged(model: TransformerSize, texts: int, new: int) -> Price:
    return model.score(texts, PROMPT + new, texts * new)
