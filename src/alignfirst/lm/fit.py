"""Maximum likelihood: supervised fine-tuning, and distillation on a teacher's samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from alignfirst.errors import InputError
from alignfirst.lm.batch import Batch
from alignfirst.lm.forward import response_logp
from alignfirst.lm.optim import Optimiser, OptimSettings
from alignfirst.lm.tally import Book, Curves, Log, Tally


@dataclass(frozen=True)
class FitResult:
    """What a training took and how it went; the model itself was trained in place."""

    updates: int
    samples: int  # rows trained on, counted as often as they were seen
    tokens: dict[str, int]
    flops: float
    curves: Curves = field(repr=False)


def fit(
    model: Any,
    batches: Iterable[Batch],
    updates: int,
    optim: OptimSettings,
    log: Log | None = None,
    chunk: int | None = None,
) -> FitResult:
    """Minimise the mean negative log-likelihood per response token over `updates` batches.

    Raises StageFailure when the gradient is not finite, InputError when the batches run out.
    """
    model.eval()  # no dropout
    optimiser, book, tally, samples = Optimiser(model.parameters(), optim, updates), Book(log), Tally(), 0
    source = iter(batches)
    for step in range(updates):
        batch = next(source, None)
        if batch is None:
            raise InputError(f"fitting needs {updates} batches", step, "Repeat the data, or ask for fewer updates.")
        loss = likelihood_step(model, batch, int(batch.mask.sum()), tally, chunk)
        book.add({"loss": loss, "grad_norm": optimiser.step()})
        samples += len(batch)
    return FitResult(updates, samples, tally.tokens(), tally.flops, book.curves)


def likelihood_step(model: Any, batch: Batch, tokens: int, tally: Tally, chunk: int | None = None) -> float:
    """Add up gradients of -sum log p(response) / tokens; returns that loss."""
    total = 0.0
    for part in batch.chunks(chunk):
        loss = -response_logp(model, part).sum() / tokens
        loss.backward()
        tally.train(model, part.n_tokens)
        total += float(loss.detach())
    return total
