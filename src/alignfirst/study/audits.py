"""The audit of every reference of a study: one node beside each planned alignment, and no training behind it.

Worlds draw, the audit judges. In a plain alignment one model is the reference, draws the responses and is where
training starts. In an anchored one they differ: the optimum is the reference's, hits come from the model that draws
(the one that training starts from, or that offline pairs come from), and gains are counted from the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from alignfirst.worlds import TEXT
from alignfirst.worlds.protocol import Artefact, AuditDraws, AuditedWorld, Drawn, Json, Load, Node, Outcome

if TYPE_CHECKING:
    from alignfirst.audit.draws import Draws, Sample
    from alignfirst.audit.predict import Evidence

COLUMNS = ("audit_reward", "audit_mass", "audit_verdict", "audit_reason")
REFUSED = "refused"  # no verdict of the audit: it predicts nothing for such an alignment, and says why


def refusal(config: Any, algorithm: str) -> str | None:
    """Why the audit has no number for this algorithm in this study; None where it has."""
    from alignfirst.audit.predict import refusal

    return refusal(algorithm, config.value("preferences.labels"))


def planned(config: Any, algorithm: str, share: float = 1.0) -> int:
    """Responses that an alignment of this study draws, with a share of its updates (offline pairs: both of each)."""
    from alignfirst.theory.objectives import ALGORITHMS

    method = ALGORITHMS[algorithm]
    if method.data == "pairs-offline":
        return 2 * int(config.value("preferences.pairs"))
    updates = max(1, round(share * config.value("align.updates")))
    if method.reuses_batches:
        updates = -(-updates // int(config.value("align.ppo_epochs")))
    return int(updates * config.value("align.samples"))


def plan_of(config: Any, algorithm: str, beta: float, rollouts: int) -> dict[str, Json]:
    """What the audit's `Plan` takes: how labels are made matters to algorithms that learn from pairs alone."""
    from alignfirst.theory.objectives import ALGORITHMS

    plan: dict[str, Json] = {"algorithm": algorithm, "beta": beta, "rollouts": rollouts}
    if config.world in TEXT:
        plan["text"] = True
    if ALGORITHMS[algorithm].on_pairs:
        plan |= {name: config.value(f"preferences.{name}") for name in ("labels", "flip", "scale")}
    return plan


def settings(world: AuditedWorld, config: Any, seed: int, algorithm: str, beta: float, share: float) -> dict[str, Json]:
    """What decides the verdict on one planned alignment: the world's draws, the plan, and the audit's own rules."""
    plan = plan_of(config, algorithm, beta, planned(config, algorithm, share))
    return world.settings("audit", config, seed=seed) | {"plan": plan, "rules": rules()}


@cache
def rules() -> str:
    """Changes with every constant of the audit, and with the number that is raised when its rules change."""
    from alignfirst.audit import constants

    values = [(k, repr(v)) for k, v in sorted(vars(constants).items()) if k.isupper()]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def compute(world: AuditedWorld, nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Verdicts on planned alignments; what was drawn of a model serves all nodes that ask for it."""
    known: dict[str, Evidence] = {}
    return [_judged(_evidence(world, node, load, known), node.settings["plan"]) for node in nodes]


def _judged(evidence: Evidence, plan: Mapping[str, Any]) -> Artefact:
    from alignfirst.audit.predict import Plan, predict
    from alignfirst.audit.verdict import judge

    prediction = predict(evidence, Plan(**plan))
    verdict = judge(evidence, prediction)
    found = (prediction.reward.value, prediction.mass.value, verdict.call, verdict.because)
    return Artefact(meta=dict(zip(COLUMNS, found, strict=True)))


def _evidence(world: AuditedWorld, node: Node, load: Load, known: dict[str, Evidence]) -> Evidence:
    draws_of = {k: v for k, v in node.settings.items() if k not in ("plan", "rules")}

    def of(role: str) -> Evidence:
        from alignfirst.audit.predict import examine

        model, teacher = node.inputs[role], node.inputs["sft"]
        at = repr((model, teacher, draws_of))
        if at not in known:
            known[at] = examine(pooled(world.draw(draws_of, model, teacher, load)))
        return known[at]

    reference, start, drawing = of("reference"), of("initial"), of("pairs" if "pairs" in node.inputs else "initial")
    if drawing is start is reference:
        return reference
    return replace(drawing, tilts={}, anchor=reference, start=start)


def pooled(found: AuditDraws) -> Draws:
    """The draws of a world as the weighted sample that an audit examines."""
    from alignfirst.audit.draws import gather

    teacher = None if found.teacher is None else sample(found.teacher)
    return gather(sample(found.reference), teacher, found.preferred)


def sample(drawn: Drawn) -> Sample:
    """What a world drew as the audit takes it. Raises InputError for values that are not finite."""
    from alignfirst.audit.draws import Sample

    return Sample.of(**vars(drawn))
