"""The audits that are judged: evidence on every reference, a prediction and a verdict for every training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignfirst import worlds
from alignfirst.auditing.gated_prediction import Evidence, Plan, Prediction, examine, predict
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.auditing.verdict import judge
from alignfirst.worlds.mog.draws import MixtureDrawing
from audit_cells import Cells, Outcome, Reference, rollouts


def held_out(teacher: int) -> bool:
    """Blocks of four, so that both halves have as many teachers with two targets."""
    return teacher // 4 % 2 == 1


@dataclass(frozen=True)
class Audited:
    """Evidence on one reference, pooled with its teacher or plain, and the teacher's own."""

    pooled: Evidence
    plain: Evidence
    teacher_sample: Sample
    teacher: Evidence
    discrimination: float


def audit_all(cells: Cells, draws: int) -> dict[Reference, Audited]:
    found = {}
    for t, config in cells.configs.items():
        own = Reference(t, None)
        random = np.random.default_rng([1, t])
        settings = worlds.get("mog").drawing_settings(config, seed=t)
        for reference, theta in ((r, m) for r, m in cells.models.items() if r.teacher == t):
            drawing = MixtureDrawing(settings, theta, cells.models[own])
            q, p = (drawing.sample(model, draws, random) for model in (theta, cells.models[own]))
            preferred = drawing.preferred(draws, random)
            teacher = replace(p, logp_reference=p.logp_teacher)
            pooled = gather(q, None if reference == own else p, preferred)
            found[reference] = Audited(
                examine(pooled),
                examine(gather(q, None, preferred)),
                p,
                examine(gather(teacher, None, preferred)),
                discrimination(p),
            )
    return found


def discrimination(p: Sample) -> float:
    """Share of pairs of the teacher's draws whose better member is the likelier one under the reference."""
    assert p.logp_reference is not None
    half = len(p) // 2
    better = np.sign(p.reward[:half] - p.reward[half : 2 * half])
    return float((better * (p.logp_reference[:half] - p.logp_reference[half : 2 * half]) > 0).mean())


@dataclass(frozen=True)
class Row:
    reference: Reference
    beta: float
    prediction: Prediction
    call: str
    end: Outcome
    audited: Audited
    recall: float


def rows_of(
    cells: Cells, audited: dict[Reference, Audited], algorithm: str, held: bool, pooled: bool = True
) -> list[Row]:
    rows = []
    for (reference, name, beta), end in cells.aligned.items():
        if name != algorithm or held_out(reference.teacher) != held:
            continue
        a = audited[reference]
        evidence = a.pooled if pooled else a.plain
        plan = Plan(algorithm, beta, rollouts(cells.configs[reference.teacher], algorithm))
        prediction = predict(evidence, plan)
        call = judge(evidence, prediction).call
        rows.append(Row(reference, beta, prediction, call, end, a, cells.measured[reference]["target_recall"]))
    return rows


def value(rows: list[Row], name: str) -> Any:
    return np.array([getattr(r.prediction, name).value for r in rows])
