"""What a node costs, from its settings, the lengths of the training rows and the sizes of the models, before anything
is made; and how budgets of recipes are matched. What a training really took is counted while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.costs.price import Price
from alignfirst.costs.training import alignment, distillation, updates_on
from alignfirst.costs.transformer import TransformerSize
from alignfirst.errors import InputError
from alignfirst.lm.models import named_models
from alignfirst.lm.training.counters import size_of_config
from alignfirst.nodes import Json, Node, NodeKind
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.user_models.resolved_inputs import index_of, student_architecture

DRAWS = 256  # random chunks that stand for all
MOST = 1_000.0  # times align.updates: beyond, no budget is worth matching
BYTES = {"float32": 4, "bfloat16": 2}
ADAPTERS = 0.02  # of a model's weights, about
Nodes = Mapping[str, Node]
Settings = Callable[..., dict[str, Json]]  # of the world: kind, config, context


def price(node: Node, nodes: Nodes) -> Price:
    """The cost of one node; `nodes` holds its inputs, and theirs, by key. A reward is not counted."""
    if node.kind == "audit":
        return Price()
    if node.kind in ("measure", "draw"):
        return (_measured if node.kind == "measure" else _drawn)(node, nodes)
    return _trained(node, nodes) + _stored(node, nodes)


# -- models and rows --------------------------------------------------------------------------------------------------


def size(node: Node, nodes: Nodes) -> TransformerSize:
    """Of the model that a node makes."""
    if node.kind == "align":
        return size(nodes[node.inputs["initial"]], nodes)
    s = node.settings
    teacher = _architecture(s["teacher"]["source"], s["teacher"]["digest"])
    return size_of_architecture(student_architecture(s["student"], teacher) if node.kind == "distil" else teacher)


def size_of_architecture(plain: Mapping[str, Any]) -> TransformerSize:
    """`plain`: see `named_models.architecture`."""
    return _size(json.dumps(plain, sort_keys=True))


@lru_cache(maxsize=16)
def _size(plain: str) -> TransformerSize:
    return size_of_config(named_models.config_of(json.loads(plain)))


@lru_cache(maxsize=16)
def _architecture(name: str, digest: str) -> dict[str, Any]:
    return named_models.architecture_of(name)


@lru_cache(maxsize=8)
def training_lengths(index: str) -> NDArray[np.int64]:
    """Tokens of prompt, chosen and rejected of the rows to train on, [R, 3]. Raises InputError where there are none."""
    arrays = index_of(index).arrays
    lengths: NDArray[np.int64] = arrays["lengths"][~arrays["held"]]
    if not len(lengths):
        raise InputError("there must be a row to train on", 0, "Hold out fewer prompts, or bring more rows.")
    return lengths


def _means(node: Node) -> tuple[float, float, float]:
    """Mean tokens of prompt, chosen and rejected."""
    prompt, chosen, rejected = training_lengths(node.settings["data"]["index"]).mean(0).tolist()
    return prompt, chosen, rejected


def _chunks(index: str, chunk: int) -> NDArray[np.int64]:
    """Random chunks of pairs, [D, pairs, 3]."""
    lengths = training_lengths(index)
    return lengths[np.random.default_rng(0).integers(0, len(lengths), (DRAWS, max(1, chunk // 2)))]


@lru_cache(maxsize=16)
def _chunk_of_pairs(model: TransformerSize, index: str, chunk: int) -> Price:
    """Training on a chunk of responses in pairs, padded to its longest: the mean over random chunks."""
    total = Price()
    for prompt, chosen, rejected in np.moveaxis(_chunks(index, chunk), 2, 1):
        longest = int((prompt + np.maximum(chosen, rejected)).max())
        total += model.train(2 * len(prompt), longest, int((chosen + rejected).sum()))
    return total * (1 / DRAWS)


@lru_cache(maxsize=16)
def _chunk_of_scores(model: TransformerSize, index: str, chunk: int) -> Price:
    """Scoring a chunk of responses, padded to its longest: the mean over random chunks."""
    rows = _chunks(index, chunk).reshape(-1, 3)
    picks = np.random.default_rng(1).integers(0, len(rows), (DRAWS, chunk))
    total = Price()
    for prompt, answer, _ in np.moveaxis(rows[picks], 2, 1):
        total += model.score(chunk, int((prompt + answer).max()), int(answer.sum()))
    return total * (1 / DRAWS)


# -- kinds of nodes ---------------------------------------------------------------------------------------------------


def _trained(node: Node, nodes: Nodes) -> Price:
    s, model, (prompt, chosen, _) = node.settings, size(node, nodes), _means(node)
    learner = model.with_adapters() if "lora" in s else model
    if node.kind == "sft":
        if "steps" not in s:
            return Price()
        return updates_on(learner, s["steps"], s["batch"], s["chunk"], prompt + chosen, chosen)
    if node.kind == "distil":
        return distillation(s, size(nodes[node.inputs["teacher"]], nodes), learner, prompt, s["new_tokens"])
    reference = size(nodes[node.inputs["reference"]], nodes) if ALGORITHMS[s["algorithm"]].uses_reference else None
    if "new_tokens" in s:
        source = size(nodes[node.inputs["pairs"]], nodes) if "pairs" in s else None
        return alignment(s, learner, reference, prompt, s["new_tokens"], source)
    index, n = s["data"]["index"], s["updates"] * s["samples"]
    trained: Price = _chunk_of_pairs(learner, index, s["chunk"]) * (n / s["chunk"])
    used = 2 * min(len(training_lengths(index)), n // 2)
    if reference is not None:
        trained += _chunk_of_scores(reference, index, s["chunk"]) * (used / s["chunk"])
    return trained


def _drawn(node: Node, nodes: Nodes) -> Price:
    """What an audit draws of a model and scores."""
    s, model, total = node.settings, size(nodes[node.inputs["model"]], nodes), Price()
    prompt, chosen, rejected = _means(node)
    if "new_tokens" in s:
        n, new = s["prompts"] * s["samples"], s["new_tokens"]
        total += model.sample(n, prompt, new) + model.score(n, prompt + new, n * new)
    if "pairs" in s:
        total += model.score(s["pairs"], prompt + chosen + rejected, s["pairs"] * (chosen + rejected))
    return total


def _measured(node: Node, nodes: Nodes) -> Price:
    """Answers drawn and scored by three models (the sft model's are drawn once for all), held-out pairs by two."""
    s, model, (prompt, chosen, rejected) = node.settings, size(nodes[node.inputs["model"]], nodes), _means(node)
    n, new, answer = s["samples"], s["new_tokens"], (chosen + rejected) / 2
    own = model.sample(n, prompt, new) + model.score(3 * n, prompt + new, 3 * n * new)
    return own + model.score(4 * s["pairs"], prompt + answer, 4 * s["pairs"] * answer)


def _stored(node: Node, nodes: Nodes) -> Price:
    """Weights; adapters alone where they learned; nothing for a model as it came."""
    s = node.settings
    if node.kind == "sft" and "steps" not in s:
        return Price()
    share = ADAPTERS if "lora" in s else 1.0
    return Price(stored=share * BYTES[s["precision"]] * size(node, nodes).parameters)


# -- recipes ----------------------------------------------------------------------------------------------------------


def planned(settings: Settings, config: Any, recipe: Sequence[Any], algorithm: str | None) -> dict[str, Node]:
    """The sft stage of a recipe and those after it, by key."""
    nodes: dict[str, Node] = {}
    seed, count = config.seed_list[0], {"align": 0, "distil": 0}

    def add(kind: NodeKind, inputs: Mapping[str, str], **context: Any) -> str:
        node = Node(kind, settings(kind, config, seed=seed, **context), inputs)
        nodes[node.key] = node
        return node.key

    sft = last = add("sft", {})
    for stage in recipe:
        occurrence = count[stage.kind]
        if stage.kind == "distil":
            last = add("distil", {"teacher": last}, rehearsed=stage.rehearsed, occurrence=occurrence)
        else:
            reference = sft if "sft" in (stage.reference, config.align.reference) else last
            roles = {"initial": last, "reference": reference, "pairs": last}
            context = {"algorithm": algorithm, "beta": None, "updates": stage.updates, "occurrence": occurrence}
            last = add("align", roles, **context)
        count[stage.kind] += 1
    return nodes


def with_updates(nodes: Nodes, config: Any, recipe: Sequence[Any], scale: float) -> dict[str, Node]:
    """The same stages, the updates of those that align multiplied."""
    found = dict(nodes)
    for (key, node), stage in zip(list(nodes.items())[1:], recipe, strict=True):
        if stage.kind == "align":
            updates = max(1, round(stage.updates * scale * config.align.updates))
            found[key] = replace(node, settings={**node.settings, "updates": updates})
    return found


def spent(nodes: Nodes) -> Price:
    """Of all stages after sft, which every recipe shares."""
    return sum((_trained(node, nodes) for node in nodes.values() if node.kind != "sft"), Price())


def scale(settings: Settings, config: Any, recipe: Sequence[Any], first: Sequence[Any], algorithm: str | None) -> float:
    """What the align updates of a recipe are multiplied with, so that it costs what the first recipe does.

    Raises InputError where its other stages alone cost more, or no number of updates would do.
    """
    if not any(stage.kind == "align" for stage in recipe) or not any(stage.kind == "align" for stage in first):
        return 1.0
    unit, nodes = config.budget.match, planned(settings, config, recipe, algorithm)

    def total(times: float) -> float:
        return float(getattr(spent(with_updates(nodes, config, recipe, times)), unit))

    budget = float(getattr(spent(planned(settings, config, first, algorithm)), unit))
    low, high = 1 / config.align.updates, MOST
    if not total(low) <= budget <= total(high):
        cure = "Name another recipe first, raise align.updates, or lower distil.samples and distil.steps."
        rule = f"budget.match: {unit} must be in reach of every recipe"
        raise InputError(rule, f"{total(low):.3g} to {total(high):.3g} for a budget of {budget:.3g}", cure)
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if total(middle) < budget else (low, middle)
    return high
