"""What is to be audited, on what data, for which plans; models and files as a person names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignfirst.auditing.constants import GATES
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target
from alignfirst.data.layouts import AUTO, Layout
from alignfirst.errors import InputError

BETA = 0.1


@dataclass(frozen=True)
class Plans:
    """Every algorithm at every beta (> 0), with so many rollouts: responses that training draws in all.

    What is left out: all algorithms that the audit predicts, beta 0.1, and an unknown number of rollouts, with which
    nothing is a `go`; of a study's model, whatever its study plans. `labels` are bradley-terry or hard.
    """

    algorithms: Sequence[str] = ()
    betas: Sequence[float] = ()
    rollouts: int | None = None
    labels: str = "bradley-terry"


@dataclass(frozen=True)
class AuditRequest:
    """The arguments of `alignfirst.audit`."""

    reference: str
    teacher: str | None = None
    pairs: str | Path | None = None
    prompts: str | Path | None = None
    reward: str | Callable[[list[str], list[str]], Any] | None = None
    target: Target | None = None
    target_file: str | Path | None = None
    plans: Plans | Sequence[Plan] = Plans()
    samples: int | None = None
    new_tokens: int = 256
    rows: int | None = None
    layout: Layout = AUTO
    out: str | Path | None = None

    def refuse(self, names: Sequence[str], rule: str, cure: str) -> None:
        """Raise InputError where one of the named arguments is given."""
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(rule, f"--{name.replace('_', '-')}", cure)

    def planned(self, text: bool) -> list[Plan]:
        """The plans on a reference of no study. `text`: responses are sequences of tokens."""
        p = self.plans
        if not isinstance(p, Plans):
            return [replace(plan, text=text) for plan in p]
        return [
            Plan(algorithm, beta, p.rollouts, p.labels, text=text)
            for algorithm in p.algorithms or GATES
            for beta in p.betas or (BETA,)
        ]
