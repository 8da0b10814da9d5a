"""What an audit rests on in the chain: texts that measurements draw anyway, judged by both models and by the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alignfirst.lm.io import numpy_api
from alignfirst.lm.models.build import SmolLlama
from alignfirst.lm.models.load import from_arrays
from alignfirst.nodes import Json, Load
from alignfirst.world import AuditDraws, Drawn
from alignfirst.worlds.chain.oracle import Oracle
from alignfirst.worlds.chain.texts import F64, Texts, of_shards
from alignfirst.worlds.chain.truth import Truth


def audit_draws(settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
    """Texts of the model in a role and, unless it is its own teacher, of the sft model; rewards are the target model's.

    What a wanted text earns is what the target model's own texts do.
    """
    numpy_api.one_thread()
    truth, n = Truth.read(load(inputs["source"])), settings["samples"]
    oracle = Oracle(_model(inputs["target"], load), load(inputs["target"]).meta)
    own, teachers, wanted = (_texts(truth, inputs, name, load).first(n) for name in (f"own-{role}", "own-sft", "text"))
    preferred = oracle.of_logp(wanted.logp, wanted.lengths)  # they were drawn from it, at temperature 1
    if inputs[role] == inputs["sft"]:
        return AuditDraws(_drawn(oracle, own, own.logp, own.logp), None, preferred)
    model, teacher = _model(inputs[role], load), _model(inputs["sft"], load)
    return AuditDraws(
        _drawn(oracle, own, own.logp, _judged(own, teacher)),
        _drawn(oracle, teachers, _judged(teachers, model), teachers.logp),
        preferred,
    )


def _drawn(oracle: Oracle, texts: Texts, under_model: F64, under_teacher: F64) -> Drawn:
    rewards = oracle.of_logp(_judged(texts, oracle.model), texts.lengths)
    return Drawn(rewards, rewards >= oracle.threshold, under_model, under_teacher)


def _judged(texts: Texts, judge: Any) -> F64:
    return np.concatenate([numpy_api.logp_of(judge, batch.to(judge.device)) for batch in texts.batches()])


def _texts(truth: Truth, inputs: Mapping[str, str], role: str, load: Load) -> Texts:
    return of_shards(truth.prompt, [load(inputs[name]) for name in sorted(inputs) if name.startswith(f"{role}-")])


def _model(key: str, load: Load) -> Any:
    artefact = load(key)
    model = from_arrays(SmolLlama(**artefact.meta["config"]), artefact.arrays).to(numpy_api.device())
    return model.requires_grad_(False)
