"""Maximum likelihood over epochs of a fixed set of texts; the checkpoint is the one that held-out text likes best.

Texts stay as they were stored, in small integers, until their batch comes: ten million of 512 tokens are 10 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.batch import Batch, Ints
from alignfirst.lm.fit import likelihood_step
from alignfirst.lm.forward import token_logps
from alignfirst.lm.optim import Optimiser, OptimSettings
from alignfirst.lm.streams import permutations, stream
from alignfirst.lm.tally import Book, Curves, Log, Tally
from alignfirst.lm.team import ALONE, Team

TOGETHER = 256  # held-out texts in one forward pass


@dataclass(frozen=True)
class EpochSettings:
    """`checks` looks at held-out text are spread evenly over the updates, the last at the end. With `patience`,
    training stops after so many checks in a row without a better one."""

    optim: OptimSettings
    updates: int
    batch: int
    checks: int = 10
    patience: int | None = None
    chunk: int | None = None  # texts in one forward pass, and what processes share out; None: all

    def __post_init__(self) -> None:
        if min(self.updates, self.batch, self.checks, self.patience or 1, self.chunk or 1) < 1:
            raise InputError("updates, batch, checks, patience and chunk must be >= 1", self, "Use the defaults.")
        if self.chunk is not None and self.batch % self.chunk:
            raise InputError(f"chunk must divide batch ({self.batch})", self.chunk, "Use for example 256 and 8.")

    def is_check(self, update: int) -> bool:
        """Whether held-out text is looked at after update 0..updates-1."""
        return (update + 1) * self.checks // self.updates > update * self.checks // self.updates


@dataclass(frozen=True)
class EpochResult:
    """As `fit.FitResult`, and which update's weights were kept: counted from 1, with their held-out loss."""

    updates: int
    samples: int
    tokens: dict[str, int]
    flops: float
    curves: Curves = field(repr=False)
    kept: int
    held_out: float  # nats a token


@dataclass(frozen=True)
class Corpus:
    """So many texts, and any of them as a batch."""

    size: int
    rows: Callable[[Ints], Batch]


def fit_epochs(
    model: Any,
    texts: Corpus,
    held_out: Corpus,
    settings: EpochSettings,
    seed: int,
    occurrence: int = 0,
    log: Log | None = None,
    team: Team = ALONE,
) -> EpochResult:
    """Train `model` in place, ending with the weights of its best check.

    Curves: `loss` and `held_out` in nats per response token (the latter where it was checked), `grad_norm`. Raises
    StageFailure when the gradient is not finite.
    """
    model.eval()  # no dropout
    optimiser, book, tally = Optimiser(model.parameters(), settings.optim, settings.updates, team), Book(log), Tally()
    picks = permutations(stream(seed, "batches", occurrence), texts.size, settings.batch)
    best = _Best()
    for update in range(settings.updates):
        loss = _step(model, texts, next(picks), settings, tally, team)
        seen: dict[str, float | None] = {"loss": loss, "grad_norm": optimiser.step()}
        if settings.is_check(update):
            seen["held_out"] = _held_out_loss(model, held_out, tally, team)
            best.see(model, update + 1, seen["held_out"])
        book.add(seen)
        if settings.patience is not None and best.since >= settings.patience:
            break
    best.restore(model)
    done = tally.over(team)
    return EpochResult(
        book.updates,
        book.updates * settings.batch,
        done.tokens(),
        done.flops,
        book.curves,
        best.update,
        best.loss,
    )


def _step(model: Any, texts: Corpus, picks: Ints, settings: EpochSettings, tally: Tally, team: Team) -> float:
    """Add up this process's share of the gradients of one batch; the loss of all of it."""
    size = settings.chunk or settings.batch
    parts = [picks[a : a + size] for a in range(0, len(picks), size)]
    own = [texts.rows(parts[i]) for i in team.share(len(parts))]
    counts = np.array([sum(int(b.mask.sum()) for b in own)], dtype=np.float64)
    tokens = int(team.gather(counts).sum())
    losses = [likelihood_step(model, batch, tokens, tally) for batch in own]
    return float(team.gather(np.array([sum(losses)])).sum())


def _held_out_loss(model: Any, held_out: Corpus, tally: Tally, team: Team) -> float:
    """Nats a token; every process looks at its share of the texts."""
    own = np.array_split(np.arange(held_out.size), team.size)[team.rank]
    total = np.zeros(2)
    for a in range(0, len(own), TOGETHER):
        batch = held_out.rows(own[a : a + TOGETHER])
        total += [-token_logps(model, batch).sum(), float(batch.mask.sum())]
        tally.score(model, batch.n_tokens)
    loss, tokens = team.gather(total[None]).sum(0)
    return float(loss / tokens)


class _Best:
    """The weights that held-out text liked best, and how many checks ago that was."""

    def __init__(self) -> None:
        self.loss, self.update, self.since = np.inf, 0, 0
        self.weights: dict[str, Any] = {}

    def see(self, model: Any, update: int, loss: float | None) -> None:
        assert loss is not None
        self.since += 1
        if loss < self.loss:
            self.loss, self.update, self.since = loss, update, 0
            self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def restore(self, model: Any) -> None:
        for name, p in model.named_parameters():
            if name in self.weights:
                p.copy_(self.weights[name])
