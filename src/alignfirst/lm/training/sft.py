"""Maximum likelihood: supervised fine-tuning, training from scratch, and distillation on a teacher's samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import response_logp, score_batch
from alignfirst.lm.training.batch_cursor import BatchCursor
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Log, Tally
from alignfirst.lm.training.loop import Loop
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.lm.training.result import TrainingResult

AT_ONCE = 256  # held-out texts in one call


class Texts(Protocol):
    """So many texts, and any of them as a batch; a `Batch` is one."""

    def __len__(self) -> int: ...

    def rows(self, index: Any) -> Batch: ...


@dataclass(frozen=True)
class HeldOut:
    """Texts that choose the weights: those of the update after which they were likeliest.

    They are looked at `checks` times (>= 1), spread evenly over the updates, the last time at the end. With `patience`
    (>= 1), training stops after so many checks in a row without a better one.
    """

    texts: Texts
    checks: int = 10
    patience: int | None = None

    def __post_init__(self) -> None:
        if min(self.checks, 1 if self.patience is None else self.patience) < 1:
            raise InputError("checks and patience must be >= 1", (self.checks, self.patience), "Use the defaults.")

    def is_check(self, update: int, updates: int) -> bool:
        """Whether the texts are looked at after update 0..updates-1."""
        return (update + 1) * self.checks // updates > update * self.checks // updates


def sft(
    model: Any,
    batches: Iterable[Any],
    updates: int,
    optim: OptimSettings,
    *,
    read: Callable[[Any], Batch] | None = None,
    chunk: int | None = None,
    held_out: HeldOut | None = None,
    log: Log | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team = ALONE,
) -> TrainingResult:
    """Train `model` in place: minimise the mean negative log-likelihood per response token, one batch an update.

    `batches` must come in the same order whenever they are asked for anew: a training that is resumed from its
    `checkpoints` goes past those it has seen. They are batches, or what `read` makes batches of (row numbers, say),
    which is then done for those alone that are trained on. `chunk` rows are in one forward pass (None: all), and the
    processes of a `team` share the chunks of a batch. With `held_out` text training ends with the weights that it
    liked best. `log(update, values)` is told of every update.

    Curves: `loss` in nats per response token, `held_out` likewise where it was looked at, `grad_norm` before clipping.
    Raises StageFailure when the gradient is not finite, InputError when the batches run out.
    """
    if min(updates, 1 if chunk is None else chunk) < 1:
        raise InputError("updates and chunk must be >= 1", (updates, chunk), "chunk: None takes a batch as a whole.")
    model.eval()  # no dropout
    tally, seen = Tally(), _Seen()
    cursor = BatchCursor(iter(batches), read, extra=seen)
    chosen = None if held_out is None else (len(held_out.texts), held_out.checks, held_out.patience)
    with Loop(model, optim, updates, ("sft", chunk, chosen), tally, log, checkpoints, team) as loop:
        for update in loop.steps(cursor):
            if held_out is not None and held_out.patience is not None and seen.since >= held_out.patience:
                break
            batch: Batch = next(cursor)
            seen.samples += len(batch)
            loss = likelihood_step(model, batch, int(batch.mask.sum()), tally, chunk, team)
            look = None
            if held_out is not None and held_out.is_check(update, updates):
                look = partial(_look, model, held_out, update + 1, seen, tally, team)
            loop.step({"loss": team.sum(loss)}, look)
    if held_out is None:
        return TrainingResult.of(loop, seen.samples)
    seen.give_best(model)
    return TrainingResult.of(loop, seen.samples, kept=seen.update, held_out=seen.loss)


def likelihood_step(
    model: Any, batch: Batch, tokens: int, tally: Tally, chunk: int | None = None, team: Team = ALONE
) -> float:
    """Add up gradients of -sum log p(response) / tokens over this process's chunks; returns their loss."""
    total = 0.0
    for part in team.backward_parts(list(batch.chunks(chunk))):
        part = part.trimmed()
        loss = -response_logp(model, part).sum() / tokens
        loss.backward()
        tally.train(model, part)
        total += float(loss.detach())
    return total


@dataclass
class _Seen:
    """Rows trained on, the weights that held-out text liked best, and how many checks ago that was."""

    samples: int = 0
    loss: float = math.inf
    update: int = 0
    since: int = 0
    best: dict[str, Any] = field(default_factory=dict)

    def check(self, model: Any, update: int, loss: float) -> None:
        self.since += 1
        if loss < self.loss:
            self.loss, self.update, self.since = loss, update, 0
            self.best = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def give_best(self, model: Any) -> None:
        for name, p in model.named_parameters():
            if name in self.best:
                p.copy_(self.best[name])

    def state(self, used_up: bool) -> State:
        checked = {"loss": self.loss, "update": self.update, "since": self.since} if self.best else {}
        return State({"samples": self.samples, **checked}, self.best)

    def restore(self, state: State) -> None:
        for name, value in state.numbers.items():
            setattr(self, name, value)
        self.best = dict(state.tensors)


def _look(model: Any, held_out: HeldOut, update: int, seen: _Seen, tally: Tally, team: Team) -> dict[str, float | None]:
    """Loss of held-out text, nats a token; every process looks at its share of the texts."""
    own = np.array_split(np.arange(len(held_out.texts)), team.size)[team.rank]
    total = np.zeros(2)
    for a in range(0, len(own), AT_ONCE):
        batch = held_out.texts.rows(own[a : a + AT_ONCE])
        total += [-score_batch(model, batch).sum(), float(batch.mask.sum())]
        tally.score(model, batch)
    loss, tokens = team.gather(total[None]).sum(0)
    seen.check(model, update, float(loss / tokens))
    return {"held_out": float(loss / tokens)}
