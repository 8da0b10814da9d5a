"""The audit of every reference of a study: one node beside each planned alignment, and no training behind it.

Worlds draw, the audit judges. In a plain alignment one model is the reference, draws the responses and is where
training starts. In an anchored one they differ: the optimum is the reference's, hits come from the model that draws
(the one that training starts from, or that offline pairs come from), and gains are counted from the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from alignfirst.nodes import Artefact, Json, Load, Node, Outcome
from alignfirst.world import AuditDraws, AuditedWorld, Drawn, Preferences
from alignfirst.worlds import TEXT

if TYPE_CHECKING:
    from alignfirst.auditing.gated_prediction import Evidence
    from alignfirst.auditing.pooled_draws import Draws, Sample
    from alignfirst.auditing.verdict import Verdict

COLUMNS = ("audit_reward", "audit_mass", "audit_verdict", "audit_reason")
PAIRS = "pairs"  # what the audit keeps of preference pairs, for the exhibits: no column
REFUSED = "refused"  # no verdict of the audit: it predicts nothing for such an alignment, and says why


def refusal(config: Any, algorithm: str) -> str | None:
    """Why the audit has no number for this algorithm in this study; None where it has."""
    from alignfirst.auditing.gated_prediction import refusal

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


def given(config: Any, algorithm: str) -> bool:
    """Whether it learns from pairs of a file, which no model of the study drew."""
    from alignfirst.theory.objectives import ALGORITHMS

    pairs = getattr(getattr(config, "data", None), "pairs", None)
    return pairs is not None and ALGORITHMS[algorithm].data == "pairs-offline"


def settings(world: AuditedWorld, config: Any, seed: int, algorithm: str, beta: float, share: float) -> dict[str, Json]:
    """What decides the verdict on one planned alignment: the world's draws, the plan, and the audit's own rules.

    On given pairs no number is predicted whatever is planned: one audit then serves all betas and algorithms.
    """
    if given(config, algorithm):
        return world.settings("audit", config, seed=seed, given=True) | {"plan": None, "rules": rules()}
    rollouts = getattr(world, "rollouts", planned)(config, algorithm, share)
    plan = plan_of(config, algorithm, beta, rollouts)
    return world.settings("audit", config, seed=seed) | {"plan": plan, "rules": rules()}


@cache
def rules() -> str:
    """Changes with every constant of the audit, and with the number that is raised when its rules change."""
    from alignfirst.auditing import constants

    values = [(k, repr(v)) for k, v in sorted(vars(constants).items()) if k.isupper()]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def compute(world: AuditedWorld, nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Verdicts on planned alignments; what was drawn of a model serves all nodes that ask for it."""
    known: dict[str, Examined] = {}
    return [_judged(_examined(world, node, load, known), node.settings["plan"]) for node in nodes]


@dataclass(frozen=True)
class Examined:
    """What the draws and the pairs of one model say. Without `evidence`, `verdict` is what is left to say."""

    evidence: Evidence | None
    verdict: Verdict | None
    pairs: Mapping[str, Json] | None

    @classmethod
    def of(cls, found: AuditDraws) -> Examined:
        from alignfirst.auditing.gated_prediction import examine
        from alignfirst.auditing.verdict import of_given_pairs, without_reward

        pairs = None if found.pairs is None else told(found.pairs)
        if found.reference is None:
            return cls(None, without_reward() if found.without == "reward" else of_given_pairs(), pairs)
        return cls(examine(pooled(found)), None, pairs)


def told(pairs: Preferences) -> dict[str, Json]:
    """What preference pairs tell of a model and of what it lost against its teacher, with the worst rows."""
    from alignfirst.auditing.rows import PairRows, Responses, coverage, row_findings

    chosen, rejected = (Responses(**vars(side)) for side in (pairs.chosen, pairs.rejected))
    found = row_findings(PairRows(pairs.line, pairs.prompt, chosen, rejected, pairs.entropy))
    if np.isnan(chosen.logp_teacher).all():
        return found
    profile = coverage(chosen.logp_teacher, chosen.logp_reference, pairs.prompt, "chosen answers")
    return found | {"coverage": profile}


def lines(meta: Mapping[str, Any]) -> list[str]:
    """What preference pairs told, for a person; nothing where there were none."""
    from alignfirst.auditing.sentences import pair_lines

    return [] if meta.get(PAIRS) is None else list(pair_lines(meta[PAIRS]))


def _judged(found: Examined, plan: Mapping[str, Any] | None) -> Artefact:
    from alignfirst.auditing.gated_prediction import Plan, predict
    from alignfirst.auditing.verdict import judge

    more = {} if found.pairs is None else {PAIRS: found.pairs}
    if found.evidence is None or plan is None:
        assert found.verdict is not None
        return Artefact(meta=dict.fromkeys(COLUMNS) | _said(found.verdict) | more)
    prediction = predict(found.evidence, Plan(**plan))
    verdict = judge(found.evidence, prediction)
    numbers = {"audit_reward": prediction.reward.value, "audit_mass": prediction.mass.value}
    return Artefact(meta=numbers | _said(verdict) | more)


def _said(verdict: Verdict) -> dict[str, Json]:
    return {"audit_verdict": verdict.call, "audit_reason": verdict.because}


def _examined(world: AuditedWorld, node: Node, load: Load, known: dict[str, Examined]) -> Examined:
    draws_of = {k: v for k, v in node.settings.items() if k not in ("plan", "rules")}

    def of(role: str) -> Examined:
        at = repr((node.inputs[role], node.inputs["sft"], draws_of))
        if at not in known:
            known[at] = Examined.of(world.draw(draws_of, node.inputs, role, load))
        return known[at]

    reference = of("reference")
    if reference.evidence is None:
        return reference
    start, drawing = of("initial"), of("pairs" if "pairs" in node.inputs else "initial")
    if drawing is start is reference:
        return reference
    assert drawing.evidence is not None and start.evidence is not None
    evidence = replace(drawing.evidence, tilts={}, anchor=reference.evidence, start=start.evidence)
    return replace(reference, evidence=evidence)


def pooled(found: AuditDraws) -> Draws:
    """The draws of a world as the weighted sample that an audit examines."""
    from alignfirst.auditing.pooled_draws import gather

    assert found.reference is not None
    teacher = None if found.teacher is None else sample(found.teacher)
    return gather(sample(found.reference), teacher, found.preferred)


def sample(drawn: Drawn) -> Sample:
    """What a world drew as the audit takes it. Raises InputError for values that are not finite."""
    from alignfirst.auditing.pooled_draws import Sample

    return Sample.of(**vars(drawn))
