"""The whole audit: every plan judged, with the numbers behind it, as plain data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignfirst.auditing.constants import EXPERIMENT, MIN_ESS, ON_POLICY
from alignfirst.auditing.gated_prediction import Evidence, Plan, Prediction, examine, predict, ranking
from alignfirst.auditing.gated_prediction import plain as plain_prediction
from alignfirst.auditing.inputs import Inputs
from alignfirst.auditing.order import Order
from alignfirst.auditing.preference_rows import coverage, every_row, row_findings
from alignfirst.auditing.verdict import Verdict, judge, percent, without_reward
from alignfirst.auditing.window import Needs, Window, beta_window, needs

VERSION = 1  # of the shape of `Audit.plain()`


@dataclass(frozen=True)
class Judged:
    """One plan with everything that was found about it."""

    prediction: Prediction
    verdict: Verdict
    needs: Needs
    ranking: float | None  # where the tilt has collapsed

    @property
    def plan(self) -> Plan:
        return self.prediction.plan

    def sentence(self) -> str:
        """What a manager reads."""
        plan = self.plan
        within = f" within {plan.rollouts:,} rollouts" if plan.rollouts else ""
        return f"{self.verdict.call.upper()}: {plan.algorithm} at beta {plan.beta:g}{within}: {self.verdict.because}."

    def plain(self) -> dict[str, Any]:
        v = self.verdict
        return {
            **plain_prediction(self.prediction),
            "verdict": v.call,
            "because": v.because,
            "todo": list(v.todo),
            "more_draws": v.more_draws,
            **self.needs.plain(),
            "ranking_only": self.ranking,
        }


@dataclass(frozen=True)
class Audit:
    """An audit of one reference. `rows` holds the findings of preference rows, `windows` one window an algorithm."""

    title: str
    inputs: Inputs
    evidence: Evidence | None
    judged: tuple[Judged, ...]
    windows: dict[str, Window]
    profile: list[dict[str, Any]]
    rows: dict[str, Any] | None
    orders: tuple[Order, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)  # what was audited: models, files, settings

    @property
    def calls(self) -> list[str]:
        return [j.verdict.call for j in self.judged]

    @property
    def verdict(self) -> Verdict:
        """Of the plan alone, or of a reference without reward or without plans."""
        return self.judged[0].verdict if self.judged else without_reward()

    def headline(self) -> str:
        """The verdict in one sentence."""
        if not self.judged:
            verdict = without_reward()
            return f"{verdict.call.upper()}: {verdict.because}."
        if len(self.judged) == 1:
            return self.judged[0].sentence()
        plans, calls = len(self.judged), self.calls
        if set(calls) == {"no-go"}:
            return f"NO-GO for all {plans} plans: none is predicted to bring the target to half of outputs."
        others = ", ".join(f"{calls.count(c)} {c}" for c in ("no-go", "insufficient data") if c in calls)
        going = [j for j in self.judged if j.verdict.call == "go"]
        if not going:
            return f"No plan of {plans} is a go: {others}."
        best = max(going, key=lambda j: j.prediction.reward.value or 0.0)
        return f"GO for {len(going)} of {plans} plans{f' ({others})' if others else ''}; best: {best.sentence()}"

    def plain(self) -> dict[str, Any]:
        """JSON-safe; every number with its interval or the reason why it has none."""
        e = self.evidence
        return {
            "audit_version": VERSION,
            "title": self.title,
            "about": self.about,
            "headline": self.headline(),
            "plans": [j.plain() for j in self.judged],
            "reference": None if e is None else _plain_evidence(e),
            "target": self.inputs.target,
            "windows": {name: w.plain() for name, w in self.windows.items()},
            "coverage": {"of": self.inputs.covered_what, "profile": self.profile},
            "pairs": self.rows,
            "orders": [
                {
                    "call": o.call,
                    "because": o.because,
                    "align_distil": o.align_distil.plain(),
                    "distil_align": o.distil_align.plain(),
                }
                for o in self.orders
            ],
            "notes": list(self.inputs.notes),
            "constants": EXPERIMENT,
        }


def _plain_evidence(e: Evidence) -> dict[str, Any]:
    d = e.draws
    return {
        "draws": d.reference_draws,
        "hits": d.reference_hits if d.in_target is not None else None,
        "teacher_draws": int(d.teacher.sum()),
        "prompts": d.prompts,
        "target_mass": e.mass.plain(),
        "reward": e.reward.plain(),
        "reward_outside_target": e.outside.plain(),
        "preferred_reward": e.preferred.plain(),
        "hit_quality": e.quality.plain(),
        "weights_total": d.raw_total.plain(),
    }


def audit(
    inputs: Inputs, plans: Sequence[Plan], *, title: str = "reference", about: dict[str, Any] | None = None
) -> Audit:
    """Judge every plan. Without rewards only the preference rows and coverage are reported."""
    evidence = None if inputs.draws is None else examine(inputs.draws)
    judged = () if evidence is None else tuple(_judged(evidence, plan) for plan in plans)
    windows: dict[str, Window] = {}
    for j in judged:
        if j.plan.algorithm not in windows and j.prediction.refused is None:
            assert evidence is not None
            windows[j.plan.algorithm] = beta_window(evidence, j.plan)
    profile = [] if inputs.covered is None else coverage(*inputs.covered, inputs.covered_what)
    rows = None
    if inputs.pairs is not None:
        rows = row_findings(inputs.pairs) | {"every": every_row(inputs.pairs)}
    return Audit(title, inputs, evidence, judged, windows, profile, rows, about=about or {})


def _judged(evidence: Evidence, plan: Plan) -> Judged:
    prediction = predict(evidence, plan)
    collapsed = prediction.ess is not None and prediction.ess < MIN_ESS
    guess = ranking(evidence, plan.beta) if collapsed else None
    return Judged(prediction, judge(evidence, prediction), needs(evidence, prediction), guess)


__all__ = ["ON_POLICY", "Audit", "Judged", "audit", "percent"]
