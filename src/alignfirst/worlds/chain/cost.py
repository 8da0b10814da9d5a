"""What a node costs, from its settings alone; what it was counted to cost while it ran is the same where no text ends.

A pass forward takes 2 operations a weight and token, a pass forward and back 6 (Kaplan et al. 2020, arXiv 2001.08361,
without attention over the past, which at 512 tokens adds less than a tenth). Tokens are those fed to a model, the
prompt's too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from alignfirst.nodes import Node
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.world import Price

Settings = Mapping[str, Any]
Nodes = Mapping[str, Node]
FORWARD, TRAINING = 2.0, 6.0
PROBES = 9  # points of the curves of an offline algorithm, which would never ask the policy by itself


def price(node: Node, nodes: Nodes) -> Price:
    """The cost of one node; `nodes` holds its inputs, and theirs, by key."""
    return PRICES[node.kind](node, nodes)


def probe_every(updates: int) -> int:
    return max(1, updates // (PROBES - 1))


# -- models and texts -------------------------------------------------------------------------------------------------


def parameters(model: Settings, vocabulary: int) -> int:
    """Weights of a Llama-style model whose input and output embeddings are one matrix."""
    hidden = model["hidden"]
    width = hidden // model["heads"]
    attention = 2 * hidden * width * (model["heads"] + model["kv_heads"])
    block = attention + 3 * hidden * model["intermediate"] + 2 * hidden
    return int(vocabulary * hidden + model["layers"] * block + hidden)


def vocabulary(source: Settings) -> int:
    return int(source["expected"]["vocabulary"] if source["keep"] is None else source["keep"])


def size(node: Node, nodes: Nodes) -> int:
    """Weights that every token is multiplied with, of the model that a node makes."""
    if node.kind == "align":
        return size(nodes[node.inputs["initial"]], nodes)
    if node.kind == "source":
        whole = node.settings["expected"]
        return int(whole["parameters"] - (whole["vocabulary"] - vocabulary(node.settings)) * whole["hidden"])
    return parameters(node.settings["model"], vocabulary(_source(node, nodes).settings))


def text(node: Node, nodes: Nodes) -> int:
    """Tokens of a text and its prompt, none of which ends early."""
    s = _source(node, nodes).settings
    return int(s["expected"]["prompt_tokens"] + s["length"])


def _source(node: Node, nodes: Nodes) -> Node:
    return node if node.kind == "source" else nodes[node.inputs["source"]]


def _texts(node: Node, nodes: Nodes, role: str) -> int:
    return sum(nodes[k].settings["samples"] for r, k in node.inputs.items() if r.startswith(f"{role}-"))


def sampled(tokens: int, weights: int) -> Price:
    return Price(sampled=tokens, sampling=FORWARD * weights * tokens)


def scored(tokens: int, weights: int) -> Price:
    return Price(scored=tokens, scoring=FORWARD * weights * tokens)


def trained(tokens: int, weights: int) -> Price:
    return Price(trained=tokens, training=TRAINING * weights * tokens)


def _weights(n: int) -> Price:
    return Price(stored=4 * n)


# -- kinds of nodes ---------------------------------------------------------------------------------------------------


def _of_source(node: Node, nodes: Nodes) -> Price:
    s = node.settings
    if s["keep"] is None:
        return Price()
    return sampled(s["counted"] * text(node, nodes), s["expected"]["parameters"])


def _of_draw(node: Node, nodes: Nodes) -> Price:
    n = node.settings["samples"]
    model = nodes[node.inputs.get("model", node.inputs["source"])]
    length = _source(node, nodes).settings["length"]
    width = 2 if vocabulary(_source(node, nodes).settings) <= 1 << 16 else 4
    return sampled(n * text(node, nodes), size(model, nodes)) + Price(stored=n * (width * length + 8))


def _of_fit(node: Node, nodes: Nodes) -> Price:
    s, weights, length = node.settings, size(node, nodes), text(node, nodes)
    looks = min(s["checks"], s["updates"]) * _texts(node, nodes, "held")
    return trained(s["updates"] * s["batch"] * length, weights) + scored(looks * length, weights) + _weights(weights)


def _of_target(node: Node, nodes: Nodes) -> Price:
    tokens, weights = _texts(node, nodes, "star") * text(node, nodes), size(node, nodes)
    return _of_fit(node, nodes) + sampled(tokens, weights) + scored(2 * tokens, weights)


def _of_align(node: Node, nodes: Nodes) -> Price:
    s, method, length = node.settings, ALGORITHMS[node.settings["algorithm"]], text(node, nodes)
    policy, target = size(node, nodes), size(nodes[node.inputs["target"]], nodes)
    reference = size(nodes[node.inputs["reference"]], nodes) if method.uses_reference else 0
    batch, updates = s["samples"] * length, s["updates"]

    def drawn(tokens: int, model: int, by_reference: bool = True) -> Price:
        """Responses of a model, their rewards, and their log-probabilities under the reference."""
        found = sampled(tokens, model) + scored(tokens, target)
        return found + scored(tokens, reference) if reference and by_reference else found

    if method.data == "pairs-offline":
        source, same = nodes[node.inputs["pairs"]], node.inputs["pairs"] == node.inputs["reference"]
        update = 2 * min(s["samples"] // 2, s["pairs"]) * length
        total = trained(updates * update, policy)
        total += drawn(2 * s["pairs"] * length, size(source, nodes), by_reference=not same)
        return total + drawn(ceil(updates / probe_every(updates)) * batch, policy) + _weights(policy)
    draws = ceil(updates / s.get("epochs", 1))
    total = trained(updates * batch, policy) + drawn(draws * batch, policy)
    if method.critic:
        total += scored(draws * batch, reference or policy)  # the states that its value function sees
    return total + _weights(policy)


def _of_measure(node: Node, nodes: Nodes) -> Price:
    """The model's texts under everything that judges them, and held-out texts under the model."""
    i, length = node.inputs, text(node, nodes)
    star, given, own = (_texts(node, nodes, role) * length for role in ("star", "text", "own"))
    total = scored(star + given, size(nodes[i["model"]], nodes)) + scored(own, size(nodes[i["target"]], nodes))
    for judge in {i["sft"], i.get("reference", i["sft"])} - {i["model"]}:
        total += scored(own, size(nodes[judge], nodes))
    return total + scored(node.settings["scored"] * length, size(nodes[i["source"]], nodes))


def _of_audit(node: Node, nodes: Nodes) -> Price:
    """Texts of each model under the target, and of each under the other; those of sft once for each."""
    i, tokens = node.inputs, node.settings["samples"] * text(node, nodes)
    target, sft = size(nodes[i["target"]], nodes), size(nodes[i["sft"]], nodes)
    total = Price()
    for model in {i[role] for role in ("reference", "initial", "pairs") if role in i}:
        total += scored(tokens, target)
        if model != i["sft"]:
            total += scored(tokens, target) + scored(tokens, sft) + scored(tokens, size(nodes[model], nodes))
    return total


PRICES: Mapping[str, Callable[[Node, Nodes], Price]] = {
    "source": _of_source,
    "draw": _of_draw,
    "target": _of_target,
    "sft": _of_fit,
    "distil": _of_fit,
    "align": _of_align,
    "measure": _of_measure,
    "audit": _of_audit,
}


# -- words ------------------------------------------------------------------------------------------------------------


def scaled_down(config: Any) -> list[str]:
    """What a dry run says about smaller scales: what they show, and what they cannot."""
    p, words = config.p_star, config.p_star.keep or config.p_star.vocabulary
    texts = round(p.samples * config.scale)
    sft, student = (parameters(_sizes(m), words) for m in (config.sft, config.distil))
    measured, seeds = round(config.measure.samples * config.scale), len(config.seed_list)
    error = (config.target.mass * (1 - config.target.mass) / max(1, measured)) ** 0.5
    return [
        f"p_star writes {texts:,} of {p.samples:,} texts: {texts * p.length / sft:.2g} tokens a weight of sft ({sft:,} "
        f"weights), {texts * p.length / student:.2g} of the student ({student:,}). Below about 20 (Hoffmann et al. "
        "2022, arXiv 2203.15556) models from scratch are held back by too little text: precision and recall then say "
        "more about the budget than about the order.",
        f"A target mass near {config.target.mass:g} is measured on {measured:,} texts to within {error:.2g} (one "
        "standard error).",
        f"{seeds} seeds: intervals over seeds, and verdicts on the claims."
        if seeds >= 5
        else f"{seeds} seed(s): differences are shown as they fell; intervals and verdicts need 5.",
    ]


def _sizes(section: Any) -> Settings:
    return {k: getattr(section, k) for k in ("hidden", "layers", "heads", "kv_heads", "intermediate")}
