"""What the grammar world computes: small transformers trained and measured, everything random seeded by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alignfirst.auditing.audit_nodes import run_audit
from alignfirst.costs.training import probe_every
from alignfirst.errors import StageFailure
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.align.trainer import AlignSettings, Task, align
from alignfirst.lm.distil.distillation import DistilSettings, distil
from alignfirst.lm.io import numpy_api
from alignfirst.lm.models.load import TinyLlama, build, to_arrays
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.sft import sft
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome, rounded
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.grammar import draws, measure, streams
from alignfirst.worlds.grammar.language import F64, Language, Tokens, language
from alignfirst.worlds.grammar.models import AT_ONCE, model_of, prompt_of, reward_of

Settings = Mapping[str, Any]

# Fits follow the paper's chain: warm-up 1 %, then stable, the last 20 % a linear decay. Alignment has a constant rate.
WARMUP, DECAY = 0.01, 0.2
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

    result = sft(model, fresh(), s["steps"], _schedule(s), checkpoints=Checkpoints.of(node.key))
    return _artefact(model, _sizes(s, lang), lang, seed, result, samples=result.samples)


def run_distil(node: Node, load: Load) -> Artefact:
    """A student of any teacher."""
    s = node.settings
    lang, seed, occurrence = language(s["p_star"]), s["seed"], s["occurrence"]
    teacher = model_of(load(node.inputs["teacher"]))
    student = build(_sizes(s, lang), streams.number(seed, "distil-start", occurrence))
    settings = DistilSettings(
        method=s["loss"],
        optim=_schedule(s),
        temperature=s["temperature"],
        filter=s.get("filter"),
        samples=s.get("samples", s["batch"]),
        updates=s["steps"],
        batch=s["batch"],
        top_k=s.get("top_k"),
        occurrence=occurrence,
    )
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
    train = partial(align, checkpoints=Checkpoints.of(node.key)) if s["trainer"] == "native" else _trl()
    result = train(policy, reference, task, settings, streams.number(s["seed"], "align"))
    sizes = TinyLlama(**initial.meta["config"])
    artefact = _artefact(policy, sizes, lang, s["seed"], result, samples=result.samples)
    return Artefact(
        artefact.arrays, {**artefact.meta, "target_draws": result.target_draws, "drawn_an_update": s["samples"]}
    )


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
}
RUN: Mapping[str, Callable[[Sequence[Node], Load], list[Outcome]]] = {
    **{kind: partial(numpy_api.one_by_one, work) for kind, work in WORK.items()},
    "audit": partial(run_audit, draws.audit_draws),
}


def _trl() -> Callable[..., Any]:
    from alignfirst.lm.align.trl_trainer import align_with_trl  # imports TRL

    return align_with_trl


def _artefact(model: Any, sizes: TinyLlama, lang: Language, seed: int, result: Any, samples: int) -> Artefact:
    """Weights, what they cost, how training went, and a few texts for the eye."""
    arrays = to_arrays(model)
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise StageFailure(f"weights are not finite after {result.updates} updates: lower the learning rate")
    prompt = lang.balanced(SHOWN)
    shown = draw_answers(model, _prompts(lang), prompt, streams.number(seed, "texts"))
    meta: dict[str, Json] = {
        "config": asdict(sizes),
        "updates": result.updates,
        "samples": samples,
        "flops": float(result.flops),
        "tokens": result.tokens,
        "curves": {name: [rounded(v) for v in curve] for name, curve in result.curves.items()},
        "texts": shown.batch.response_array.tolist(),
    }
    return Artefact(arrays, meta)


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


def _schedule(s: Settings) -> OptimSettings:
    return OptimSettings(s["learning_rate"], warmup=WARMUP, decay=DECAY)


def _prompts(lang: Language) -> Prompts:
    return Prompts.of_array(lang.marks(np.arange(lang.prompts)), lang.length)


def _posterior(lang: Language, batch: Batch) -> F64:
    return lang.posterior(batch.response_array, prompt_of(lang, batch))


@lru_cache(maxsize=4)
def _held_out(lang: Language, n: int) -> tuple[Tokens, Tokens]:
    """The same text for every model of a language: n samples of p_star under balanced prompts, and n of p_target."""
    rng = streams.generator(0, "held-out")
    return lang.sample(lang.balanced(n), rng), lang.sample_target(n, rng)
