"""Maximum likelihood: supervised fine-tuning, and distillation on a teacher's samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import response_logp
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Curves, Log, Tally
from alignfirst.lm.training.loop import Loop
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE, Team


@dataclass(frozen=True)
class FitResult:
    """What a training took and how it went; the model itself was trained in place."""

    updates: int
    samples: int  # rows trained on, counted as often as they were seen
    tokens: dict[str, int]
    flops: float
    curves: Curves = field(repr=False)
    products: float = 0.0


def fit(
    model: Any,
    batches: Iterable[Batch],
    updates: int,
    optim: OptimSettings,
    log: Log | None = None,
    chunk: int | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team = ALONE,
) -> FitResult:
    """Minimise the mean negative log-likelihood per response token over `updates` batches.

    `batches` must come in the same order whenever they are asked for anew: a training that is resumed goes through
    those it has seen, without training on them. Processes of a team share the chunks of a batch. Raises StageFailure
    when the gradient is not finite, InputError when the batches run out.
    """
    model.eval()  # no dropout
    source, tally = BatchCursor(iter(batches), updates), Tally()
    with Loop(model, optim, updates, ("fit", chunk), tally, log, checkpoints, team) as loop:
        for _ in loop.steps(source):
            batch = next(source)
            loss = likelihood_step(model, batch, int(batch.mask.sum()), tally, chunk, team)
            loop.step({"loss": team.sum(loss)})
    total = tally.over(team)
    return FitResult(updates, source.samples, total.tokens(), total.flops, loop.book.curves, total.products)


class BatchCursor:
    """Batches as they come, and how many rows were in them."""

    def __init__(self, batches: Iterator[Batch], updates: int) -> None:
        self.batches, self.updates, self.taken, self.samples = batches, updates, 0, 0

    def __next__(self) -> Batch:
        batch = next(self.batches, None)
        if batch is None:
            cure = "Repeat the data, or ask for fewer updates."
            raise InputError(f"fitting needs {self.updates} batches", self.taken, cure)
        self.taken += 1
        self.samples += len(batch)
        return batch

    def state(self, done: int) -> State:
        return State()

    def restore(self, done: int, state: State) -> None:
        for _ in range(done):
            next(self)


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
