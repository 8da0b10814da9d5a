"""What the grammar world computes: small transformers trained and measured, everything random seeded by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alignfirst.auditing.audit_nodes import run_audit
from alignfirst.costs.training import probe_every
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.align.trainer import AlignSettings, Task
from alignfirst.lm.distil.distillation import distil
from alignfirst.lm.io import numpy_api
from alignfirst.lm.models.load import TinyLlama, build, to_arrays
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.result import TrainingResult
from alignfirst.lm.training.sft import sft
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.grammar import draws, measure, streams
from alignfirst.worlds.grammar.language import F64, Language, Tokens, language
from alignfirst.worlds.grammar.models import AT_ONCE, model_of, prompt_of, reward_of
from alignfirst.worlds.trained import aligner, distil_settings, fit_schedule, trained

Settings = Mapping[str, Any]

SHOWN = 8  # texts that are kept with a model


def run_sft(node: Node, load: Load) -> Artefact:
    """The high-recall model: every step has fresh samples of p_star."""
    s = node.settings
    lang, seed = language(s["p_star"]), s["seed"]
    model = build(_sizes(s, lang), streams.number(seed, "sft-start"))
    rng = streams.generator(seed, "sft-data")

    def fresh() -> Iterator[Batch]:
        prompt = lang.balanced(s["batch"])
        while True:
            yield Batch.of_arrays(lang.marks(prompt), lang.sample(prompt, rng))

    result = sft(model, fresh(), s["steps"], fit_schedule(s), checkpoints=Checkpoints.of(node.key))
    return _artefact(model, _sizes(s, lang), lang, seed, result)


def run_distil(node: Node, load: Load) -> Artefact:
    """A student of any teacher."""
    s = node.settings
    lang, seed, occurrence = language(s["p_star"]), s["seed"], s["occurrence"]
    teacher = model_of(load(node.inputs["teacher"]))
    student = build(_sizes(s, lang), streams.number(seed, "distil-start", occurrence))
    settings = distil_settings(s, fit_schedule(s))
    rehearsal = None
    if "rehearsal" in s:
        n = round(s["rehearsal"] * s["samples"])
        own = lang.sample_target(n, streams.generator(seed, "rehearsal", occurrence))
        rehearsal = Batch.of_arrays(lang.marks(lang.balanced(n)), own)
    number, checkpoints = streams.number(seed, "distil"), Checkpoints.of(node.key)
    result = distil(teacher, student, _prompts(lang), settings, number, rehearsal, checkpoints=checkpoints)
    return _artefact(student, _sizes(s, lang), lang, seed, result, samples=s.get("samples", result.samples))


def run_align(node: Node, load: Load) -> Artefact:
    """One alignment: one algorithm, beta and seed."""
    s = node.settings
    lang, method = language(s["p_star"]), ALGORITHMS[s["algorithm"]]
    initial = load(node.inputs["initial"])
    policy = model_of(initial)
    settings = AlignSettings.of(
        s,
        OptimSettings(s["learning_rate"]),
        probe_every=probe_every(s["updates"]) if method.data == "pairs-offline" else 0,
        reward_timeout=s["reward"].get("timeout"),
    )
    task = Task(
        prompts=_prompts(lang),
        reward=reward_of(s["reward"], lang),
        is_target=lambda batch: _posterior(lang, batch)[:, lang.target] > 0.5,
        pair_source=model_of(load(node.inputs["pairs"])) if "pairs" in node.inputs else None,
    )
    reference = model_of(load(node.inputs["reference"])) if method.uses_reference else None
    result = aligner(node)(policy, reference, task, settings, streams.number(s["seed"], "align"))
    sizes = TinyLlama(**initial.meta["config"])
    drawn = {"target_draws": result.target_draws, "drawn_an_update": s["samples"]}
    return _artefact(policy, sizes, lang, s["seed"], result, **drawn)


def run_measure(node: Node, load: Load) -> Artefact:
    """One model on held-out text and on its own."""
    s = node.settings
    lang, n = language(s["p_star"]), s["samples"]
    models = {role: model_of(load(key)) for role, key in node.inputs.items()}
    star, target = _held_out(lang, n)
    prompt = lang.balanced(n)
    seed, filtered = streams.number(0, "own-samples"), s.get("filter")
    drawn = draw_answers(models["model"], _prompts(lang), prompt, seed, filtered=filtered, at_once=AT_ONCE)
    own, tokens = drawn.batch, drawn.batch.response_array
    rewards = rewards_of(reward_of(s["reward"], lang), own, "the measurement", s["reward"].get("timeout"))

    def text(x: Tokens) -> measure.Text:
        return measure.Text(x, prompt, score_batch(models["model"], Batch.of_arrays(lang.marks(prompt), x)).sum(1))

    def logp_own(role: str) -> F64 | None:
        return score_batch(models[role], own).sum(1) if role in models else None

    logp_sft = logp_own("sft")
    assert logp_sft is not None
    found = measure.describe(
        lang,
        rewards,
        measure.Text(tokens, prompt, drawn.total_logp),
        text(star),
        text(target),
        logp_sft,
        logp_own("reference"),
    )
    return Artefact(meta=found)


WORK: Mapping[str, Callable[[Node, Load], Artefact]] = {
    "sft": run_sft,
    "distil": run_distil,
    "align": run_align,
    "measure": run_measure,
    "draw": draws.run_draw,
}
RUN: Mapping[str, Callable[[Sequence[Node], Load], list[Outcome]]] = {
    **{kind: partial(numpy_api.one_by_one, work) for kind, work in WORK.items()},
    "audit": partial(run_audit, draws.audit_draws),
}


def _artefact(
    model: Any, sizes: TinyLlama, lang: Language, seed: int, result: TrainingResult, **more: Json
) -> Artefact:
    """The trained model, and a few texts for the eye."""
    found = trained(to_arrays(model), result, config=asdict(sizes), **more)  # first: weights may not be finite
    shown = draw_answers(model, _prompts(lang), lang.balanced(SHOWN), streams.number(seed, "texts"))
    return Artefact(found.arrays, {**found.meta, "texts": shown.batch.response_array.tolist()})


def _sizes(s: Settings, lang: Language) -> TinyLlama:
    m = s["model"]
    return TinyLlama(
        vocab=lang.vocabulary,
        hidden=m["hidden"],
        layers=m["layers"],
        heads=m["heads"],
        kv_heads=m["heads"],
        intermediate=m["intermediate"],
        positions=1 + lang.length,
    )


def _prompts(lang: Language) -> Prompts:
    return Prompts.of_array(lang.marks(np.arange(lang.prompts)), lang.length)


def _posterior(lang: Language, batch: Batch) -> F64:
    return lang.posterior(batch.response_array, prompt_of(lang, batch))


@lru_cache(maxsize=4)
def _held_out(lang: Language, n: int) -> tuple[Tokens, Tokens]:
    """The same text for every model of a language: n samples of p_star under balanced prompts, and n of p_target."""
    rng = streams.generator(0, "held-out")
    return lang.sample(lang.balanced(n), rng), lang.sample_target(n, rng)
