"""AdamW with warm-up, a stable phase and a linear decay; gradients summed over chunks and processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.team import ALONE, Team


@dataclass(frozen=True)
class OptimSettings:
    """Loshchilov & Hutter 2019; betas of the paper's chain. `warmup` and `decay` are shares of all updates."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: float = 0.0
    decay: float = 0.0
    clip_norm: float | None = 1.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError("learning_rate must be a number > 0", self.learning_rate, "Typical: 1e-4 to 1e-2.")
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1):
            rule = "warmup and decay are shares of the updates, together at most 1"
            raise InputError(rule, (self.warmup, self.decay), "For example 0.01 and 0.2.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError("clip_norm must be > 0", self.clip_norm, "None switches clipping off.")


def rate(settings: OptimSettings, update: int, updates: int) -> float:
    """Learning rate of update 0..updates-1: linear up (never 0), stable, linear down (never 0)."""
    up, down = settings.warmup * updates, settings.decay * updates
    rising = min(1.0, (update + 1) / up) if up > 0 else 1.0
    falling = min(1.0, (updates - update) / (down + 1)) if down > 0 else 1.0
    return settings.learning_rate * min(rising, falling)


class Optimiser:
    """One `step` after the gradients of an update have been summed up in `parameter.grad`.

    Processes of a team share AdamW's moments (ZeRO stage 1, Rajbhandari et al. 2020): each keeps those of its own
    parameters, steps them, and tells the others what they became. AdamW goes number by number, so that nothing else
    comes out. Where they share gradients as well, both are divided by numbers instead (`lm.shard`).
    """

    def __init__(self, parameters: Iterable[Any], settings: OptimSettings, updates: int, team: Team = ALONE) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.settings, self.updates, self.team, self.done = settings, updates, team, 0
        self.owners = team.owners([p.numel() for p in self.parameters])
        self.shards = team.shards(self.parameters)
        own = [p for p, owner in zip(self.parameters, self.owners, strict=True) if owner == team.rank]
        own = own if self.shards is None else self.shards.own
        self.adam = torch.optim.AdamW(
            own or [torch.nn.Parameter(torch.zeros(0))],  # more processes than parameters
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
        if self.shards is None:
            self.team.sum_gradients(self.parameters)
        norm = self._clip(self.parameters if self.shards is None else self.shards.own)
        if not math.isfinite(norm):
            cure = "A lower learning rate or a larger beta may help."
            raise StageFailure(f"the gradient became {norm} at update {self.done}. {cure}")
        for group in self.adam.param_groups:
            group["lr"] = rate(self.settings, self.done, self.updates)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for p in self.parameters:
            p.grad = None
        self._tell()
        self.done += 1
        return norm

    @torch.no_grad()
    def _tell(self) -> None:
        if self.shards is not None:
            self.shards.spread()
        elif self.team.size > 1:
            for p, owner in zip(self.parameters, self.owners, strict=True):
                p.copy_(self.team.told_by(owner, p))

    def moments(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """What AdamW keeps of every parameter that it has stepped, from whichever process keeps it; for the first
        process, one parameter at a time. All processes must ask."""
        if self.shards is not None:
            yield from self.shards.whole(self.adam.state)
            return
        for p, owner in zip(self.parameters, self.owners, strict=True):
            mine = self.adam.state.get(p, {})
            if self.team.size == 1:
                yield p, mine
                continue
            kinds = self.team.collect({kind: (tuple(x.shape), x.dtype) for kind, x in mine.items()})[owner]
            empty = {kind: torch.empty(shape, dtype=dtype) for kind, (shape, dtype) in kinds.items()}
            told = {kind: self.team.told_by(owner, mine.get(kind, x)) for kind, x in empty.items()}
            yield p, {kind: x.cpu() for kind, x in told.items()} if self.team.rank == 0 else {}

    def restore(self, p: Any, kept: dict[str, Any]) -> None:
        """Take over what `moments` gave of a parameter, where this process keeps it."""
        if self.shards is not None:
            self.shards.restore(self.adam.state, p, kept)
        elif any(p is mine for group in self.adam.param_groups for mine in group["params"]):
            self.adam.state[p] = {kind: tensor.to(p.device) for kind, tensor in kept.items()}

    def close(self) -> None:
        """The training is over."""
        self.team.release()

    def _clip(self, parameters: list[Any]) -> float:
        limit = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.shards is not None:
            norm = self.shards.norm(norm)
        if limit < math.inf:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm)
