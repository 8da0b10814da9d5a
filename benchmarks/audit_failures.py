"""What the audit cannot see, counted on the held-out half, each with the example that shows it best."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from alignfirst import worlds
from alignfirst.auditing.gated_prediction import Plan, examine, predict
from alignfirst.auditing.pooled_draws import gather
from alignfirst.auditing.verdict import judge
from alignfirst.worlds.mog.draws import MixtureDrawing
from audit_cases import Audited, Row, held_out, rows_of, value
from audit_cells import ALGORITHMS, UNDERTRAINED, WIDE, Cells, Reference, config_of, rollouts
from audit_stats import spearman


def failures(cells: Cells, audited: dict[Reference, Audited]) -> dict[str, Any]:
    """Counts and one shown example of everything that the audit cannot see, on the held-out half."""
    found: dict[str, Any] = {}
    explored = [r for a in ALGORITHMS for r in rows_of(cells, audited, a, True)]
    trapped = [r for r in explored if (r.prediction.mass.value or 0) > 0.5 and r.end.target_mass <= 0.5]
    found["exploration trap"] = summary(trapped, explored, "go")
    diffuse = [r for r in explored if 0.3 < (r.audited.pooled.quality.value or 0) < 0.6 and optimum(r) > 0.9]
    found["diffuse hits"] = summary([r for r in diffuse if r.end.target_mass <= 0.5], diffuse, "go")
    sets = (("undertrained", cells.undertrained, UNDERTRAINED), ("hard labels", cells.hard, 1.0))
    for name, ends, updates in sets:
        rows = []
        for (r, a, beta), end in ends.items():
            if held_out(r.teacher):
                plan = Plan(a, beta, rollouts(cells.configs[r.teacher], a, updates))
                p = predict(audited[r].pooled, plan)
                rows.append(Row(r, beta, p, judge(audited[r].pooled, p).call, end, audited[r], 0.0))
        found[name] = summary([r for r in rows if wrong(r)], rows, "go")
    found["reward without behaviour"] = wide(cells)
    return found


def wrong(r: Row) -> bool:
    return ((r.prediction.mass.value or 0) > 0.5) != (r.end.target_mass > 0.5)


def optimum(r: Row) -> float:
    best = r.prediction.optimum
    return 0.0 if best is None or best.mass.value is None else best.mass.value


def summary(chosen: list[Row], of: list[Row], call: str) -> dict[str, Any]:
    """How many, how many of them under which verdict, and an example: one under that verdict where there is one, then
    the one whose mass was furthest from what was predicted."""

    def far(r: Row) -> tuple[bool, float]:
        return r.call == call, abs((r.prediction.mass.value or 0) - r.end.target_mass)

    worst = max(chosen, key=far, default=None)
    told = {
        "cells": len(chosen),
        "of": len(of),
        "calls": dict(Counter(r.call for r in chosen)),
        f"{call} in all": sum(r.call == call for r in of),
    }
    return told | ({} if worst is None else {"example": example(worst)})


def example(r: Row) -> dict[str, Any]:
    p, e = r.prediction, r.audited.pooled
    return {
        "teacher": r.reference.teacher,
        "student": r.reference.student,
        "algorithm": p.plan.algorithm,
        "beta": r.beta,
        "rollouts": p.plan.rollouts,
        "target_mass": e.mass.value,
        "hit_quality": e.quality.value,
        "optimum_mass": optimum(r),
        "predicted_mass": p.mass.value,
        "reached_mass": r.end.target_mass,
        "predicted_reward": p.reward.value,
        "reached_reward": r.end.reward,
        "verdict": r.call,
    }


def wide(cells: Cells) -> dict[str, Any]:
    """A wide reward: it rises although the behaviour does not come. What the audit says of both."""
    rows = []
    for (r, a, beta), end in cells.wide.items():
        if not held_out(r.teacher):
            continue
        config, own = config_of(r.teacher, width=WIDE), cells.models[Reference(r.teacher, None)]
        drawing = MixtureDrawing(worlds.get("mog").drawing_settings(config, seed=r.teacher), cells.models[r], own)
        random = np.random.default_rng([2, r.teacher])
        q, p = (drawing.sample(model, 4096, random) for model in (cells.models[r], own))
        evidence = examine(gather(q, p, drawing.preferred(4096, random)))
        prediction = predict(evidence, Plan(a, beta, rollouts(config, a)))
        audited = Audited(evidence, evidence, p, evidence, 0.0)
        rows.append(Row(r, beta, prediction, judge(evidence, prediction).call, end, audited, 0.0))
    risen = [r for r in rows if r.end.reward - (r.audited.pooled.reward.value or 0) > 0.2 and r.end.target_mass < 0.5]
    return summary(risen, rows, "go") | {
        "start_reward": None if not risen else max(risen, key=lambda r: r.end.reward).audited.pooled.reward.value,
        "dense": sum(r.prediction.dense for r in rows),
        "spearman": spearman(value(rows, "reward"), np.array([r.end.reward for r in rows])),
    }
