"""What an audit rests on in the chain: texts that measurements draw anyway, judged by both models and by the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.lm.io import numpy_api
from alignfirst.lm.models.build import SmolLlama
from alignfirst.lm.models.load import from_arrays
from alignfirst.lm.text.device import enable_tf32, local_device
from alignfirst.nodes import Json, Load
from alignfirst.worlds.chain.oracle import Oracle
from alignfirst.worlds.chain.texts import F64, Texts, of_shards, score_texts
from alignfirst.worlds.chain.truth import Truth


def audit_draws(settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
    """Texts of the model in a role and, unless it is its own teacher, of the sft model; rewards are the target model's.

    What a wanted text earns is what the target model's own texts do.
    """
    numpy_api.one_thread()
    enable_tf32()
    truth, n = Truth.read(load(inputs["source"])), settings["samples"]
    oracle = Oracle(_model(inputs["target"], load), load(inputs["target"]).meta)
    own, teachers, wanted = (_texts(truth, inputs, name, load).first(n) for name in (f"own-{role}", "own-sft", "text"))
    preferred = oracle.of_logp(wanted.logp, wanted.lengths)  # they were drawn from it, at temperature 1
    if inputs[role] == inputs["sft"]:
        return AuditDraws(_drawn(oracle, own, own.logp, own.logp), None, preferred)
    model, teacher = _model(inputs[role], load), _model(inputs["sft"], load)
    return AuditDraws(
        _drawn(oracle, own, own.logp, score_texts(teacher, own)),
        _drawn(oracle, teachers, score_texts(model, teachers), teachers.logp),
        preferred,
    )


def _drawn(oracle: Oracle, texts: Texts, under_model: F64, under_teacher: F64) -> Sample:
    rewards = oracle.of_logp(score_texts(oracle.model, texts), texts.lengths)
    return Sample.of(rewards, rewards >= oracle.threshold, logp_reference=under_model, logp_teacher=under_teacher)


def _texts(truth: Truth, inputs: Mapping[str, str], role: str, load: Load) -> Texts:
    return of_shards(truth.prompt, [load(inputs[name]) for name in sorted(inputs) if name.startswith(f"{role}-")])


def _model(key: str, load: Load) -> Any:
    artefact = load(key)
    model = from_arrays(SmolLlama(**artefact.meta["config"]), artefact.arrays).to(local_device())
    return model.requires_grad_(False)
