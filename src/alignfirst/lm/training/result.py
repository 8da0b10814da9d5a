"""What a training took and how it went, whatever it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from alignfirst.lm.training.counters import Curves
from alignfirst.lm.training.loop import Loop


@dataclass(frozen=True)
class TrainingResult:
    """What `sft`, `distil`, `align` and `align_with_trl` return; the model itself was trained in place."""

    updates: int  # steps of the optimiser
    samples: int  # responses trained on, counted as often as they were seen; an alignment: drawn for training
    tokens: dict[str, int]  # that passed through models, padding included: sampled, scored, trained
    flops: float  # by the formulas of `alignfirst.costs`
    curves: Curves = field(repr=False)  # one value an update; None where something was not measured
    target_draws: int | None = None  # alignment: of the samples, how many were target; None where nobody can tell
    kept: int | None = None  # with held-out text: the update whose weights were kept, from 1; 0: none was checked
    held_out: float | None = None  # and the loss of that text under them, nats a token

    @classmethod
    def of(cls, loop: Loop, samples: int, **more: Any) -> Self:
        """The result of a loop that ended, summed over its processes; all of them must ask."""
        total = loop.tally.over(loop.team)
        return cls(loop.done, samples, total.tokens(), total.flops, loop.recorded.curves, **more)
