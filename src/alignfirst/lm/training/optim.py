"""AdamW with warm-up, a stable phase and a linear decay; gradients summed over chunks and processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.theory.schedules import CONSTANT, SCHEDULES


@dataclass(frozen=True)
class OptimSettings:
    """Loshchilov & Hutter 2019; betas of the paper's chain. `warmup` and `decay` are shares of all updates.

    `schedule`, one of `theory.schedules`, multiplies what they make of the rate.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: float = 0.0
    decay: float = 0.0
    clip_norm: float | None = 1.0
    epsilon: float = 1e-8
    schedule: str = CONSTANT

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError("schedule must be a known one", self.schedule, f"Choose from {', '.join(SCHEDULES)}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError("learning_rate must be a number > 0", self.learning_rate, "Typical: 1e-4 to 1e-2.")
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1):
            rule = "warmup and decay are shares of the updates, together at most 1"
            raise InputError(rule, (self.warmup, self.decay), "For example 0.01 and 0.2.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError("clip_norm must be > 0", self.clip_norm, "None switches clipping off.")


def rate(settings: OptimSettings, update: int, updates: int) -> float:
    """Learning rate of update 0..updates-1: linear up (never 0), stable, linear down (never 0); times the schedule."""
    up, down = settings.warmup * updates, settings.decay * updates
    rising = min(1.0, (update + 1) / up) if up > 0 else 1.0
    falling = min(1.0, (updates - update) / (down + 1)) if down > 0 else 1.0
    return settings.learning_rate * min(rising, falling) * SCHEDULES[settings.schedule](update / updates)


class Optimiser:
    """One `step` after the gradients of an update have been added up in `parameter.grad`.

    Processes of a team step a part of the numbers each and give the others what they became (`lm.training.moments`).
    AdamW goes number by number, so that nothing else comes out.
    """

    def __init__(self, parameters: Iterable[Any], settings: OptimSettings, updates: int, team: Team = ALONE) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.settings, self.updates, self.team, self.done = settings, updates, team, 0
        self.shards = team.shards(self.parameters)
        self.own = self.parameters if self.shards is None else self.shards.own
        self.adam = torch.optim.AdamW(
            self.own,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over each tensor; on small models the loop in Python costs more than the arithmetic
        )

    def step(self) -> float:
        """Take the step, forget the gradients, return their norm before clipping.

        Raises StageFailure when the norm is not finite: the parameters are left as they were.
        """
        if self.shards is not None:
            self.shards.reduce_gradients()
        norm = self._clip()
        if not math.isfinite(norm):
            cure = "A lower learning rate or a larger beta may help."
            raise StageFailure(f"the gradient became {norm} at update {self.done}. {cure}")
        for group in self.adam.param_groups:
            group["lr"] = rate(self.settings, self.done, self.updates)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        if self.shards is not None:
            self.shards.all_gather_params()
        self.done += 1
        return norm

    def moments(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """What AdamW keeps of every parameter that it has stepped, from whichever processes keep it; for the first
        process, one parameter at a time. All processes must ask."""
        if self.shards is not None:
            return self.shards.gather_moments(self.adam.state)
        return ((p, self.adam.state.get(p, {})) for p in self.parameters)

    def restore(self, p: Any, kept: dict[str, Any]) -> None:
        """Take over what `moments` gave of a parameter, where this process keeps it."""
        if self.shards is not None:
            self.shards.restore(self.adam.state, p, kept)
        else:
            self.adam.state[p] = {kind: tensor.to(p.device) for kind, tensor in kept.items()}

    def close(self) -> None:
        """The training is over."""
        self.team.release()

    def _clip(self) -> float:
        limit = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        gradients = [p.grad for p in self.own if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.shards is not None:
            norm = self.shards.norm(norm)
        if limit < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.own, limit, norm)
        return float(norm)
