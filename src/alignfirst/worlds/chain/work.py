"""What the chain computes: texts drawn, models trained and measured, everything random seeded by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from alignfirst.auditing.audit_nodes import run_audit
from alignfirst.costs.training import probe_every
from alignfirst.lm.align.trainer import AlignSettings, Task
from alignfirst.lm.io import numpy_api
from alignfirst.lm.models.build import SmolLlama
from alignfirst.lm.models.load import build, from_arrays, to_arrays
from alignfirst.lm.text.device import enable_tf32, local_device
from alignfirst.lm.text.torch_streams import permutations, stream
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.counters import size_of
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.sft import HeldOut, sft
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome, rounded
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.chain import draws, measure, streams
from alignfirst.worlds.chain.oracle import Oracle, calibrate
from alignfirst.worlds.chain.texts import F64, Texts, draw_texts, of_shards, score_texts, shards_of, stored
from alignfirst.worlds.chain.truth import Truth, run_source
from alignfirst.worlds.trained import aligner, fit_schedule, trained

Settings = Mapping[str, Any]

SHOWN = 8  # texts that are kept with a measurement


def run_draw(node: Node, load: Load) -> Artefact:
    """One shard of texts of a model, or of p_star."""
    s, truth = node.settings, Truth.of(node, load)
    model = _model(node, load, "model") if "model" in node.inputs else truth.model()
    seed = streams.number(s["seed"], s["purpose"], s["occurrence"], s["shard"])
    texts = draw_texts(model, truth.prompts, s["samples"], seed, s["temperature"], s.get("filter"))
    return Artefact(stored(texts, truth.vocabulary), texts.drawing_price(size_of(model)).counted())


def run_target(node: Node, load: Load) -> Artefact:
    """The model that rewards, with its level, scale and threshold."""
    truth = Truth.of(node, load)
    fitted, model = _fitted(node, load, truth, 0, "target", 0)
    star = _texts(node, load, truth, "star")
    seed = streams.number(0, "calibration")
    own, size = draw_texts(model, truth.prompts, len(star), seed), size_of(model)
    spent = own.drawing_price(size) + own.scoring_price(size) + star.scoring_price(size)
    meta = {**fitted.meta, **calibrate(model, own, star, node.settings["mass"])}
    return Artefact(fitted.arrays, _with_cost(meta, spent.counted()))


def run_sft(node: Node, load: Load) -> Artefact:
    """The high-recall model: fitted to texts of p_star, which all seeds share."""
    truth = Truth.of(node, load)
    return _fitted(node, load, truth, node.settings["seed"], "sft", 0)[0]


def run_distil(node: Node, load: Load) -> Artefact:
    """A student of any teacher. What drawing the teacher's texts cost is counted as the student's."""
    truth, s = Truth.of(node, load), node.settings
    fitted, _ = _fitted(node, load, truth, s["seed"], "distil", s["occurrence"])
    drawn = [shard.meta for role in ("data", "held") for shard in shards_of(node, load, role)]
    own = {"trained_flops": fitted.meta["flops"], "trained_tokens": fitted.meta["tokens"]}
    return Artefact(fitted.arrays, _with_cost(fitted.meta, *drawn) | own | {"samples": s["samples"]})


def run_align(node: Node, load: Load) -> Artefact:
    """One alignment: one algorithm, beta and seed."""
    s, truth, method = node.settings, Truth.of(node, load), ALGORITHMS[node.settings["algorithm"]]
    probes = probe_every(s["updates"]) if method.data == "pairs-offline" else 0
    settings = AlignSettings.of(s, OptimSettings(s["learning_rate"]), probe_every=probes)
    policy, oracle = _model(node, load, "initial"), _oracle(node, load)
    reference = _model(node, load, "reference") if method.uses_reference else None
    apart = "pairs" in node.inputs and (reference is None or node.inputs["pairs"] != node.inputs["reference"])
    source = _model(node, load, "pairs") if apart else None  # None: the reference
    task = Task(truth.prompts, oracle.reward, oracle.is_target, pair_source=source)
    seed = streams.number(s["seed"], "align")
    result = aligner(node)(policy, reference, task, settings, seed)
    artefact = trained(to_arrays(policy), result, config=load(node.inputs["initial"]).meta["config"])
    more = {"target_draws": result.target_draws, "drawn_an_update": s["samples"]}
    # Every response is judged once; counted here, for a training may have gone on from a checkpoint
    new = truth.settings["length"]
    judged = result.tokens["sampled"] // (len(truth.prompt) + new)
    rewards = size_of(oracle.model).score(judged, len(truth.prompt) + new, judged * new)
    return Artefact(artefact.arrays, _with_cost(artefact.meta, rewards.counted()) | more)


def run_measure(node: Node, load: Load) -> Artefact:
    """One model on held-out texts and on its own."""
    truth, oracle, inputs = Truth.of(node, load), _oracle(node, load), node.inputs
    star, text, own = (_texts(node, load, truth, role) for role in ("star", "text", "own"))
    model, spent = _model(node, load, "model"), []

    def judged(texts: Texts, judge: Any) -> F64:
        spent.append(texts.scoring_price(size_of(judge)).counted())
        return score_texts(judge, texts)

    logp = {inputs["model"]: own.logp, inputs["target"]: judged(own, oracle.model)}
    for role in ("sft", "reference"):
        if role in inputs and inputs[role] not in logp:
            logp[inputs[role]] = judged(own, _model(node, load, role))
    roles = [role for role in ("model", "target", "sft", "reference") if role in inputs]
    first = own.first(node.settings["scored"])
    rewards = oracle.of_logp(logp[inputs["target"]], own.lengths)
    found = measure.describe(
        measure.Judged(own.lengths, {role: logp[inputs[role]] for role in roles}),
        measure.Judged(first.lengths, {"star": judged(first, truth.model())}),
        measure.Judged(star.lengths, {"model": judged(star, model)}),
        measure.Judged(text.lengths, {"model": judged(text, model), "target": text.logp}),
        rewards,
        rewards >= oracle.threshold,
        own.tokens,
    )
    first_star = star.first(SHOWN)
    shown = {
        "texts": _shown(truth, own.first(SHOWN), rewards, oracle.threshold),
        "truth": [{"text": word} for word in truth.words(first_star.tokens, first_star.lengths)],
        "cost": _with_cost({}, *spent),
    }
    return Artefact(meta=found | {"shown": shown})


WORK: Mapping[str, Callable[[Node, Load], Artefact]] = {
    "source": run_source,
    "draw": run_draw,
    "target": run_target,
    "sft": run_sft,
    "distil": run_distil,
    "align": run_align,
    "measure": run_measure,
}


def _one_by_one(work: Callable[[Node, Load], Artefact], nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Nodes share no work but what a process keeps of p_star, so that none depends on which stand beside it."""
    enable_tf32()
    return numpy_api.one_by_one(work, nodes, load)


RUN: Mapping[str, Callable[[Sequence[Node], Load], list[Outcome]]] = {
    **{kind: partial(_one_by_one, work) for kind, work in WORK.items()},
    "audit": partial(run_audit, draws.audit_draws),
}


# -- their parts ------------------------------------------------------------------------------------------------------


def _fitted(node: Node, load: Load, truth: Truth, seed: int, purpose: str, occurrence: int) -> tuple[Artefact, Any]:
    """A model from scratch on the texts that the node was given, and the model itself."""
    s = node.settings
    sizes = SmolLlama(truth.vocabulary, **s["model"], positions=len(truth.prompt) + truth.settings["length"])
    start = f"{purpose}-start"
    model = build(sizes, streams.number(seed, start, occurrence)).to(local_device())  # type: ignore[arg-type]
    data = of_shards(truth.prompt, shards_of(node, load, "data") + shards_of(node, load, "again"))
    number = streams.number(seed, purpose, occurrence)  # type: ignore[arg-type]
    result = sft(
        model,
        permutations(stream(number, "batches", 0), len(data), s["batch"]),
        s["updates"],
        fit_schedule(s),
        read=data.rows,
        chunk=s["chunk"],
        held_out=HeldOut(_texts(node, load, truth, "held"), s["checks"], s["patience"]),
        checkpoints=Checkpoints.of(node.key),
        team=numpy_api.team(),
    )
    chosen = {"kept": result.kept, "held_out": result.held_out}
    return trained(to_arrays(model), result, config=asdict(sizes), **chosen), model


def _with_cost(meta: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tokens and operations of other work added, each as `Price.counted` gives them."""
    parts = [{"tokens": {}, "flops": 0.0} | dict(meta), *more]
    tokens = {name: sum(int(p["tokens"].get(name, 0)) for p in parts) for name in ("sampled", "scored", "trained")}
    return {**meta, "tokens": tokens, "flops": float(sum(p["flops"] for p in parts))}


def _shown(truth: Truth, texts: Texts, rewards: F64, threshold: float) -> list[dict[str, Json]]:
    words = truth.words(texts.tokens, texts.lengths)
    return [
        {"text": word, "reward": rounded(float(r)), "target": float(r >= threshold)}
        for word, r in zip(words, rewards[: len(words)], strict=True)
    ]


def _texts(node: Node, load: Load, truth: Truth, role: str) -> Texts:
    return of_shards(truth.prompt, shards_of(node, load, role))


def _model(node: Node, load: Load, role: str) -> Any:
    artefact = load(node.inputs[role])
    return from_arrays(SmolLlama(**artefact.meta["config"]), artefact.arrays).to(local_device())


def _oracle(node: Node, load: Load) -> Oracle:
    return Oracle(_model(node, load, "target").requires_grad_(False), load(node.inputs["target"]).meta)
