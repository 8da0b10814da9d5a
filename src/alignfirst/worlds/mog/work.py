"""Batches of nodes for the kernel: what a worker process does. The parent never imports this."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.auditing.audit_nodes import run_audit
from alignfirst.nodes import Artefact, Failure, Json, Load, Node, Outcome
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.theory.predict import predict_stages
from alignfirst.theory.schedules import CONSTANT
from alignfirst.worlds.mog import cost
from alignfirst.worlds.mog.align import AlignSettings, Runs, align
from alignfirst.worlds.mog.distil import FitSettings, Rehearsal, distil, fit_sft
from alignfirst.worlds.mog.draws import audit_draws, run_draw
from alignfirst.worlds.mog.layout import F32
from alignfirst.worlds.mog.measure import Gauge, Reference
from alignfirst.worlds.mog.mixture import Mixture, p_star, p_target, target_radius
from alignfirst.worlds.mog.reward import Labels, Oracle


def _seeds(nodes: Sequence[Node]) -> tuple[list[int], NDArray[np.int64]]:
    """Distinct seeds, and each node's row among them."""
    seeds = sorted({int(n.settings["seed"]) for n in nodes})
    return seeds, np.array([seeds.index(n.settings["seed"]) for n in nodes])


def _load(nodes: Sequence[Node], role: str, load: Load) -> F32:
    """Input models of every node, [R, 5, K]."""
    known = {key: load(key).arrays["theta"] for key in dict.fromkeys(n.inputs[role] for n in nodes)}
    return np.stack([known[n.inputs[role]] for n in nodes])


def _models(theta: F32, metas: Sequence[Mapping[str, Json]]) -> list[Outcome]:
    """One artefact a run, or a failure where parameters are not finite."""
    return [
        Artefact({"theta": t}, meta)
        if np.isfinite(t[1:]).all() and not np.isnan(t).any()
        else Failure(f"parameters are not finite after {meta['updates']} updates: lower align.learning_rate")
        for t, meta in zip(theta, metas, strict=True)
    ]


def _fit_metas(iterations: NDArray[np.int64], s: FitSettings) -> list[dict[str, Json]]:
    prices = [cost.fit(s.samples, s.components, int(i)) for i in iterations]
    return [
        {"updates": int(i), "samples": s.samples, "flops": float(p.flops)}
        for i, p in zip(iterations, prices, strict=True)
    ]


def run_sft(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """High-recall models, one a seed."""
    seeds, row = _seeds(nodes)
    s = FitSettings(**nodes[0].settings["fit"])
    found = fit_sft(p_star(nodes[0].settings["p_star"]).theta(), seeds, s)
    metas = _fit_metas(found.iterations, s)
    return _models(found.theta[row], [metas[r] for r in row])


def run_distil(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Students of any teachers."""
    seeds, row = _seeds(nodes)
    common = nodes[0].settings
    s = FitSettings(**common["fit"])
    rehearsal = Rehearsal(common["rehearsal"], p_target(common["p_star"]).theta()) if "rehearsal" in common else None
    teachers = _load(nodes, "teacher", load)
    found = distil(teachers, seeds, row, common["selectivity"], common["occurrence"], s, rehearsal)
    return _models(found.theta, _fit_metas(found.iterations, s))


def run_align(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Any number of seeds and betas of one algorithm; models of one size go through the kernel together."""
    sizes: dict[Hashable, list[int]] = {}
    for i, node in enumerate(nodes):
        shape = tuple((role, load(key).arrays["theta"].shape) for role, key in sorted(node.inputs.items()))
        sizes.setdefault(shape, []).append(i)
    found = {
        i: o
        for members in sizes.values()
        for i, o in zip(members, _align([nodes[i] for i in members], load), strict=True)
    }
    return [found[i] for i in range(len(nodes))]


def _align(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    common = nodes[0].settings
    method = ALGORITHMS[common["algorithm"]]
    labels = Labels(**common.get("labels", {"kind": "bradley-terry", "scale": 1.0, "flip": 0.0}))
    seeds, row = _seeds(nodes)
    runs = Runs(
        initial=_load(nodes, "initial", load),
        reference=_load(nodes, "reference", load),
        pair_source=_load(nodes, "pairs", load) if method.data == "pairs-offline" else None,
        beta=np.array([[n.settings["beta"] or 0.0] for n in nodes], np.float32),
        seeds=seeds,
        row=row,
    )
    s = AlignSettings(
        algorithm=method,
        updates=common["updates"],
        samples=common["samples"],
        group=common.get("group", 2),
        epochs=common.get("epochs", 1),
        learning_rate=common["learning_rate"],
        schedule=common.get("schedule", CONSTANT),
        min_sd=common["min_sd"],
        stored_pairs=common.get("pairs", 0),
        targets=np.array(common["p_star"]["targets"], np.float32),
        radius=target_radius(common["p_star"]),
        occurrence=common["occurrence"],
    )
    with np.errstate(all="ignore"):  # a run that diverges fails below, with its reason
        info = align(runs, Oracle.of(common["oracle"]), labels, s)
    components, reference = runs.initial.shape[2], runs.reference.shape[2]
    flops = float(cost.align(s.updates, s.samples, components, info.samples, reference).flops)
    metas = [
        {"updates": s.updates, "samples": info.samples, "flops": flops, "target_draws": int(n)}
        for n in info.target_draws
    ]
    return _models(info.theta, metas)


def run_measure(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Measurements of any models that share an sft model."""
    gauge = Gauge(nodes[0].settings)
    sft = nodes[0].inputs["sft"]
    high_recall = gauge.reference(sft, Mixture.of_theta(load(sft).arrays["theta"]))
    return [Artefact(meta=_measured(node, load, gauge, high_recall)) for node in nodes]


def _measured(node: Node, load: Load, gauge: Gauge, sft: Reference) -> dict[str, Json]:
    artefact, key = load(node.inputs["model"]), node.inputs.get("reference")
    model = Mixture.of_theta(artefact.arrays["theta"])
    if key is None:
        return gauge.describe(model, sft, None)
    reference = gauge.reference(key, Mixture.of_theta(load(key).arrays["theta"]))
    found = gauge.describe(model, sft, reference)
    return found | gauge.against_optimum(found, reference, node.settings["beta"], artefact.meta["samples"])


def run_predict(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """End states that theory predicts, from sft alone."""
    return [Artefact(meta={"stages": _predicted(n.settings, load(n.inputs["sft"]))}) for n in nodes]


def _predicted(s: Mapping[str, Any], sft: Artefact) -> list[dict[str, Json]]:
    model, target, oracle = Mixture.of_theta(sft.arrays["theta"]), p_target(s["p_star"]), Oracle.of(s["oracle"])
    stages = s["stages"]
    if s["beta"] is None:  # without a reference there is no optimum: predict up to the first align
        stages = stages[: next((i for i, stage in enumerate(stages) if stage["kind"] == "align"), len(stages))]

    states = predict_stages(
        stages,
        model.weights,
        model.means,
        model.sds,
        oracle.on_points,
        s["p_star"]["targets"],
        target_radius(s["p_star"]),
        s["beta"],
        s["distil"]["selectivity"],
        s["distil"]["components"],
        s["distil"]["rehearsal"],
        (target.weights, target.means, target.sds),
        s["distil"]["floor"],
    )
    found = [{"predicted_reward": p.reward, "predicted_target_mass": p.target_mass} for p in states]
    missing = {"predicted_reward": None, "predicted_target_mass": None}
    return found + [missing] * (1 + len(s["stages"]) - len(found))


RUN: Mapping[str, Callable[[Sequence[Node], Load], list[Outcome]]] = {
    "sft": run_sft,
    "distil": run_distil,
    "align": run_align,
    "measure": run_measure,
    "predict": run_predict,
    "audit": partial(run_audit, audit_draws),
    "draw": run_draw,
}
