"""What a node costs, from its settings alone; where no text ends early, what it was counted to cost is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignfirst.costs.price import Price
from alignfirst.costs.training import alignment, probe_every, updates_on
from alignfirst.costs.transformer import TransformerSize
from alignfirst.nodes import Node
from alignfirst.theory.objectives import ALGORITHMS

Settings = Mapping[str, Any]
Nodes = Mapping[str, Node]


def price(node: Node, nodes: Nodes) -> Price:
    """The cost of one node; `nodes` holds its inputs, and theirs, by key."""
    return PRICES[node.kind](node, nodes)


# -- models and texts -------------------------------------------------------------------------------------------------


def vocabulary(source: Settings) -> int:
    return int(source["expected"]["vocabulary"] if source["keep"] is None else source["keep"])


def size(node: Node, nodes: Nodes) -> TransformerSize:
    """Of the model that a node makes."""
    if node.kind == "align":
        return size(nodes[node.inputs["initial"]], nodes)
    words = vocabulary(_source(node, nodes).settings)
    if node.kind != "source":
        return TransformerSize.llama(words, **node.settings["model"])
    return _whole(node.settings).with_vocabulary(words)


def _whole(source: Settings) -> TransformerSize:
    """p_star with its whole vocabulary: a Llama whose heads together are as wide as its states."""
    e = source["expected"]
    head, norms = e["vocabulary"] * e["hidden"], (2 * e["layers"] + 1) * e["hidden"]
    body = e["parameters"] - head - norms
    return TransformerSize(body, head, e["vocabulary"], e["layers"], e["hidden"], e["parameters"])


def lengths(node: Node, nodes: Nodes) -> tuple[int, int]:
    """Tokens of a prompt and of a text, none of which ends early."""
    s = _source(node, nodes).settings
    return int(s["expected"]["prompt_tokens"]), int(s["length"])


def _source(node: Node, nodes: Nodes) -> Node:
    return node if node.kind == "source" else nodes[node.inputs["source"]]


def _texts(node: Node, role: str, nodes: Nodes) -> int:
    return sum(nodes[k].settings["samples"] for r, k in node.inputs.items() if r.startswith(f"{role}-"))


def _judged(model: TransformerSize, texts: int, node: Node, nodes: Nodes) -> Price:
    prompt, new = lengths(node, nodes)
    return model.score(texts, prompt + new, texts * new)


def _weights(model: TransformerSize) -> Price:
    return Price(stored=4 * model.parameters)


# -- kinds of nodes ---------------------------------------------------------------------------------------------------


def _of_source(node: Node, nodes: Nodes) -> Price:
    s = node.settings
    return Price() if s["keep"] is None else _whole(s).sample(s["counted"], *lengths(node, nodes))


def _of_draw(node: Node, nodes: Nodes) -> Price:
    n, (prompt, new) = node.settings["samples"], lengths(node, nodes)
    model = nodes[node.inputs.get("model", node.inputs["source"])]
    width = 2 if vocabulary(_source(node, nodes).settings) <= 1 << 16 else 4
    return size(model, nodes).sample(n, prompt, new) + Price(stored=n * (width * new + 8))


def _of_fit(node: Node, nodes: Nodes) -> Price:
    s, model, (prompt, new) = node.settings, size(node, nodes), lengths(node, nodes)
    looks = min(s["checks"], s["updates"]) * _texts(node, "held", nodes)
    trained = updates_on(model, s["updates"], s["batch"], s["chunk"], prompt + new, new)
    return trained + _judged(model, looks, node, nodes) + _weights(model)


def _of_target(node: Node, nodes: Nodes) -> Price:
    texts, model = _texts(node, "star", nodes), size(node, nodes)
    drawn = model.sample(texts, *lengths(node, nodes))
    return _of_fit(node, nodes) + drawn + _judged(model, 2 * texts, node, nodes)


def _of_align(node: Node, nodes: Nodes) -> Price:
    s, i, method = node.settings, node.inputs, ALGORITHMS[node.settings["algorithm"]]
    models = {role: size(nodes[i[role]], nodes) for role in ("initial", "reference", "target", "pairs") if role in i}
    reference = models["reference"] if method.uses_reference else None
    if reference is not None and i.get("pairs") == i["reference"]:
        del models["pairs"]
    probes = -(-s["updates"] // probe_every(s["updates"])) if method.data == "pairs-offline" else 0
    source, judge = models.get("pairs"), models["target"]
    found = alignment(s, models["initial"], reference, *lengths(node, nodes), source, judge, probes)
    return found + _weights(models["initial"])


def _of_measure(node: Node, nodes: Nodes) -> Price:
    """The model's texts under everything that judges them, and held-out texts under the model."""
    i, own = node.inputs, _texts(node, "own", nodes)
    held = _texts(node, "star", nodes) + _texts(node, "text", nodes)
    judges = [(held, i["model"]), (own, i["target"]), (node.settings["scored"], i["source"])]
    judges += [(own, key) for key in {i["sft"], i.get("reference", i["sft"])} - {i["model"]}]
    return sum((_judged(size(nodes[key], nodes), n, node, nodes) for n, key in judges), Price())


def _of_audit(node: Node, nodes: Nodes) -> Price:
    """Texts of each model under the target, and of each under the other; those of sft once for each."""
    i, judges = node.inputs, []
    for model in {i[role] for role in ("reference", "initial", "pairs") if role in i}:
        judges.append(i["target"])
        if model != i["sft"]:
            judges += [i["target"], i["sft"], model]
    n = node.settings["samples"]
    return sum((_judged(size(nodes[key], nodes), n, node, nodes) for key in judges), Price())


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
    sft, student = (TransformerSize.llama(words, **_keys(m)).parameters for m in (config.sft, config.distil))
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


def _keys(section: Any) -> dict[str, int]:
    return {k: getattr(section, k) for k in ("hidden", "layers", "heads", "kv_heads", "intermediate")}
