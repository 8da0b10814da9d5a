"""Pieces of an audit of language models: nodes that draw answers to a few prompts, or score a few rows.

What is planned with a model stands in none of them, so that an audit at another beta asks for the same nodes; each is
stored, so that an interrupted audit goes on where it stopped. Draws of a prompt are its own, whatever stands beside it:
their seed comes from its tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.models import named_models
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Prompts
from alignfirst.lm.text.logprobs import Row, score_rows
from alignfirst.nodes import Artefact, Failure, Json, Load, Node, NodeKind, Outcome
from alignfirst.worlds.user_models.world import WORLD

PIECE = 16  # prompts of a node
Model = Mapping[str, Json]  # source and digest
Ids = Sequence[int]


def sample_nodes(model: Model, prompts: Sequence[Ids], **settings: Json) -> list[Node]:
    """Nodes that draw `samples` answers of at most `new_tokens` tokens to each prompt, ended by a token of `ends`."""
    return [_node("sample", {"model": model, "prompts": part, **settings}) for part in _pieces(prompts)]


def score_nodes(model: Model, rows: Sequence[Row]) -> list[Node]:
    """Nodes that score rows (prompt, responses)."""
    return [_node("score", {"model": model, "rows": part}) for part in _pieces(rows)]


def drawn_score_nodes(model: Model, drawn: Sequence[Node]) -> list[Node]:
    """Nodes that score what other nodes draw, under any model with the same tokenizer."""
    return [_node("score", {"model": model, "prompts": n.settings["prompts"]}, {"drawn": n.key}) for n in drawn]


def _pieces(rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[a : a + PIECE] for a in range(0, len(rows), PIECE)]


def _node(kind: NodeKind, settings: Mapping[str, Json], inputs: Mapping[str, str] | None = None) -> Node:
    return Node(kind, settings, inputs or {}, WORLD.versions[kind])


def drawn_rows(prompts: Sequence[Ids], drawn: Artefact) -> list[Row]:
    """Prompts with the answers that a node drew to each."""
    flat, lengths = drawn.arrays["tokens"], drawn.arrays["lengths"]
    answers = [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
    each = len(answers) // len(prompts)
    return [(prompt, answers[k * each : (k + 1) * each]) for k, prompt in enumerate(prompts)]


# -- the work ---------------------------------------------------------------------------------------------------------


def run(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Compute nodes of one kind and model. What a node asks wrongly fails it alone."""
    return [_outcome(node, load) for node in nodes]


def _outcome(node: Node, load: Load) -> Outcome:
    s = node.settings
    try:
        model = loaded(s["model"]["source"], s["model"]["digest"])
        if node.kind == "sample":
            return Artefact(_draw(model, s))
        rows = s["rows"] if "rows" in s else drawn_rows(s["prompts"], load(node.inputs["drawn"]))
        return Artefact({"logp": np.concatenate([logp for row in score_rows(model, rows) for logp in row])})
    except (InputError, StageFailure) as e:
        return Failure.of(e)


def _draw(model: Any, s: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    drawn = []
    for ids in s["prompts"]:
        prompt = Prompts.of_array(np.array([ids]), s["new_tokens"], s["ends"])
        seed = _seed(s["seed"], ids, s["model"]["digest"])
        text = draw_answers(model, prompt, np.zeros(s["samples"], np.int64), seed).batch
        drawn += [text.text_ids(i)[1] for i in range(s["samples"])]
    return {
        "lengths": np.array([len(answer) for answer in drawn], np.int64),
        "tokens": np.array([t for answer in drawn for t in answer], np.int64),
    }


def _seed(seed: int, ids: Ids, digest: str) -> int:
    return int(hashlib.sha256(json.dumps([seed, list(ids), digest]).encode()).hexdigest()[:15], 16)


@lru_cache(maxsize=2)  # reference and teacher take turns
def loaded(source: str, digest: str) -> Any:
    """Once a process, ready to be asked. Raises InputError where it is not the model that was identified."""
    return named_models.ready(named_models.model_of(source, digest), "float32")
