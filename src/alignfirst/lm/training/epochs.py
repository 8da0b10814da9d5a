"""Maximum likelihood over epochs of a fixed set of texts; the checkpoint is the one that held-out text likes best.

Texts stay as they were stored, in small integers, until their batch comes: ten million of 512 tokens are 10 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch, Ints
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.text.torch_streams import permutations, skip, stream
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Curves, Log, Tally
from alignfirst.lm.training.loop import Loop
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.lm.training.sft import likelihood_step

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
    checkpoints: Checkpoints | None = None,
) -> EpochResult:
    """Train `model` in place, ending with the weights of its best check.

    Curves: `loss` and `held_out` in nats per response token (the latter where it was checked), `grad_norm`. Raises
    StageFailure when the gradient is not finite.
    """
    model.eval()  # no dropout
    tally, identity = Tally(), ("epochs", settings, texts.size, held_out.size, seed, occurrence)
    state = _Progress(permutations(stream(seed, "batches", occurrence), texts.size, settings.batch))
    with Loop(model, settings.optim, settings.updates, identity, tally, log, checkpoints, team) as loop:
        for update in loop.steps(state):
            if settings.patience is not None and state.since >= settings.patience:
                break

            def look(update: int = update) -> dict[str, float | None]:
                if not settings.is_check(update):
                    return {}
                loss = _held_out_loss(model, held_out, tally, team)
                state.see(model, update + 1, loss)
                return {"held_out": loss}

            loss = _step(model, texts, next(state.picks), settings, tally, team)
            loop.step({"loss": loss}, look)
    state.keep_best(model)
    total = tally.over(team)
    n = loop.done * settings.batch
    return EpochResult(loop.done, n, total.tokens(), total.flops, loop.book.curves, state.update, state.loss)


def _step(model: Any, texts: Corpus, picks: Ints, settings: EpochSettings, tally: Tally, team: Team) -> float:
    """Add up this process's share of the gradients of one batch; the loss of all of it."""
    size = settings.chunk or settings.batch
    parts = [picks[a : a + size] for a in range(0, len(picks), size)]
    own = [texts.rows(parts[i]) for i in team.local_chunks(len(parts))]
    tokens = int(team.sum(sum(int(b.mask.sum()) for b in own)))
    total = 0.0
    for batch in own:
        total += likelihood_step(model, batch, tokens, tally)
        team.end_backward()
    return team.sum(total)


def _held_out_loss(model: Any, held_out: Corpus, tally: Tally, team: Team) -> float:
    """Nats a token; every process looks at its share of the texts."""
    own = np.array_split(np.arange(held_out.size), team.size)[team.rank]
    total = np.zeros(2)
    for a in range(0, len(own), TOGETHER):
        batch = held_out.rows(own[a : a + TOGETHER])
        total += [-score_batch(model, batch).sum(), float(batch.mask.sum())]
        tally.score(model, batch.n_tokens)
    loss, tokens = team.gather(total[None]).sum(0)
    return float(loss / tokens)


class _Progress:
    """Which texts come next; the weights that held-out text liked best, and how many checks ago that was."""

    def __init__(self, picks: Iterator[Ints]) -> None:
        self.picks = picks
        self.loss, self.update, self.since = math.inf, 0, 0
        self.best: dict[str, Any] = {}

    def see(self, model: Any, update: int, loss: float) -> None:
        self.since += 1
        if loss < self.loss:
            self.loss, self.update, self.since = loss, update, 0
            self.best = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def keep_best(self, model: Any) -> None:
        for name, p in model.named_parameters():
            if name in self.best:
                p.copy_(self.best[name])

    def state(self, done: int) -> State:
        numbers = {"loss": self.loss, "update": self.update, "since": self.since} if self.best else {}
        return State(numbers, self.best)

    def restore(self, done: int, state: State) -> None:
        skip(self.picks, done)
        if state.numbers:
            self.loss, self.update, self.since = (state.numbers[k] for k in ("loss", "update", "since"))
            self.best = dict(state.tensors)
