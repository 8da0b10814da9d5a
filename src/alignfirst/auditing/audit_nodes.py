"""The audit of every reference of a study: one node beside each planned alignment, and no training behind it.

Worlds draw, the audit judges. In a plain alignment one model is the reference, draws the responses and is where
training starts. In an anchored one they differ: the optimum is the reference's, hits come from the model that draws
(the one that training starts from, or that offline pairs come from), and gains are counted from the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from alignfirst.auditing import constants
from alignfirst.auditing.gated_prediction import Evidence, Plan, examine, predict
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.auditing.preference_rows import PairRows, coverage, row_findings
from alignfirst.auditing.share_intervals import Floats
from alignfirst.auditing.verdict import Verdict, judge, of_given_pairs, without_reward
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome

COLUMNS = ("audit_reward", "audit_mass", "audit_verdict", "audit_reason")
REFUSED = "refused"  # no verdict of the audit: it predicts nothing for such an alignment, and says why
PAIRS = "pairs"  # what the audit keeps of preference pairs, for the exhibits: no column
PLANNED = ("plan", "rules")  # settings of an audit that do not decide what is drawn


@dataclass(frozen=True)
class AuditDraws:
    """What an audit of one model rests on. `teacher` is None where the model is its own teacher.

    `reference` is None where no reward could judge draws: then `without` says why there is no number, and `pairs` tell
    what preferences tell. `preferred` [M], rewards of examples of what is wanted, is None where nothing says what a
    wanted answer earns.
    """

    reference: Sample | None
    teacher: Sample | None
    preferred: Floats | None
    pairs: PairRows | None = None
    without: Literal["reward", "labels"] = "reward"


Draw = Callable[[Mapping[str, Json], Mapping[str, str], str, Load], AuditDraws]  # see `World.draw`


@cache
def rules() -> str:
    """Changes with every constant of the audit, and with the number that is raised when its rules change."""
    values = [(k, repr(v)) for k, v in sorted(vars(constants).items()) if k.isupper()]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def run_audit(draw: Draw, nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Verdicts on planned alignments; what was drawn of a model serves all nodes that ask for it."""
    known: dict[str, Examined] = {}
    return [_judged(_examined(draw, node, load, known), node.settings["plan"]) for node in nodes]


@dataclass(frozen=True)
class Examined:
    """What the draws and the pairs of one model say. Without `evidence`, `verdict` is what is left to say."""

    evidence: Evidence | None
    verdict: Verdict | None
    pairs: Mapping[str, Json] | None

    @classmethod
    def of(cls, found: AuditDraws) -> Examined:
        pairs = None if found.pairs is None else pair_findings(found.pairs)
        if found.reference is None:
            return cls(None, without_reward() if found.without == "reward" else of_given_pairs(), pairs)
        return cls(examine(gather(found.reference, found.teacher, found.preferred)), None, pairs)


def pair_findings(pairs: PairRows) -> dict[str, Json]:
    """What preference pairs tell of a model and of what it lost against its teacher, with the worst rows."""
    found, chosen = row_findings(pairs), pairs.chosen
    if np.isnan(chosen.logp_teacher).all():
        return found
    profile = coverage(chosen.logp_teacher, chosen.logp_reference, pairs.prompt, "chosen answers")
    return found | {"coverage": profile}


def _judged(found: Examined, plan: Mapping[str, Any] | None) -> Artefact:
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


def _examined(draw: Draw, node: Node, load: Load, known: dict[str, Examined]) -> Examined:
    draws_of = {k: v for k, v in node.settings.items() if k not in PLANNED}

    def of(role: str) -> Examined:
        at = repr((node.inputs[role], node.inputs["sft"], draws_of))
        if at not in known:
            known[at] = Examined.of(draw(draws_of, node.inputs, role, load))
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
