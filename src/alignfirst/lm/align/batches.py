"""What an alignment learns from, update by update: responses of the policy now, pairs of them, or stored pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from alignfirst.lm.align.coefficients import Rollouts, RolloutWork
from alignfirst.lm.align.pair_batches import Pairs, PairWork
from alignfirst.lm.align.rollouts import (
    Baseline,
    Drawn,
    Session,
    draw_labelled,
    draw_rewarded,
    kept_pairs,
    rollout_metrics,
    tensors_of,
    with_reference,
)
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats, Ints
from alignfirst.lm.text.torch_streams import permutations
from alignfirst.lm.training.checkpoint import State


class Work(Protocol):
    """A chunk of an update."""

    @property
    def batch(self) -> Batch: ...

    @property
    def forward(self) -> SavedForward | None:
        """The forward pass of the batch from when it was drawn, good until the weights move."""
        ...

    def coefficients(self, logp: Floats) -> tuple[Floats, dict[str, Floats]]:
        """log pi of tokens [B, L] -> coefficients of grad log pi [B, L or 1], and numbers to log."""
        ...


@dataclass(frozen=True)
class Update:
    """One update or, where batches are reused, several: this process's chunks, and what the curves show of them."""

    work: Sequence[Work]
    metrics: Mapping[str, float | None] = field(default_factory=dict)


class Source:
    """Where updates come from. `items` and `read` are for a `BatchCursor`, whose extra state a source is, too."""

    def __init__(self, s: Session) -> None:
        self.s, self.update = s, Update(())  # the last one

    def items(self) -> Iterator[Any]:
        """What is cheap to go past: the same whenever it is asked for."""
        raise NotImplementedError

    def read(self, item: Any) -> Update:
        """The update that an item stands for."""
        raise NotImplementedError

    def tensors(self, used_up: bool) -> dict[str, Any] | None:
        """What items do not bring back, the last update too unless it is used up; None where others hold part of it."""
        return {}

    def take(self, tensors: Mapping[str, Any]) -> None:
        """Know what `tensors` said."""

    def state(self, used_up: bool) -> State | None:
        tensors = self.tensors(used_up)
        return None if tensors is None else State(self.s.counts(), tensors)

    def restore(self, state: State) -> None:
        self.take(state.tensors)
        self.s.count(state.numbers)


class FromPolicy(Source):
    """Groups of responses of the policy as it is now, with their rewards."""

    def __init__(self, s: Session) -> None:
        super().__init__(s)
        self.baseline = Baseline(s) if s.settings.used.critic else None

    def items(self) -> Iterator[tuple[int, Ints]]:
        s, groups = self.s, self.s.settings.samples // self.s.settings.group_size
        return enumerate(permutations(s.rng("prompts"), len(s.task.prompts), groups))

    def read(self, item: tuple[int, Ints]) -> Update:
        s, settings, baseline = self.s, self.s.settings, self.baseline
        number, prompts = item
        beta = settings.beta if settings.kl_in == "reward" else 0.0
        which = np.repeat(prompts, settings.group_size)
        drawn = draw_rewarded(s, s.policy, "rollouts", number, which, settings.at_once)
        shaped = drawn.rollouts.returns(beta, settings.level)
        metrics = rollout_metrics(drawn)
        if baseline is not None:
            shaped = shaped - baseline(drawn, shaped)
            metrics["value_explains"] = baseline.explains
        parts = zip(drawn.batches, drawn.rows, drawn.forwards, strict=True)
        work = [RolloutWork(settings, drawn.rollouts, shaped, batch, rows, forward) for batch, rows, forward in parts]
        self.update = Update(work, metrics)
        return self.update

    def tensors(self, used_up: bool) -> dict[str, Any] | None:
        learned = {} if self.baseline is None else self.baseline.critic.state()
        if used_up:
            return learned
        return None if self.s.team.size > 1 else learned | packed(self.update.work)

    def take(self, tensors: Mapping[str, Any]) -> None:
        if self.baseline is not None:
            self.baseline.critic.restore(tensors)
        if "shaped" in tensors:
            drawn, shaped, parts = unpacked(tensors)
            self.update = Update([RolloutWork(self.s.settings, drawn, shaped, batch, rows) for batch, rows in parts])


class OnlinePairs(Source):
    """Pairs of the policy as it is now, labelled on the spot."""

    def items(self) -> Iterator[tuple[int, Ints, Floats]]:
        s, labels = self.s, self.s.rng("labels")
        for number, prompts in enumerate(permutations(s.rng("prompts"), len(s.task.prompts), s.settings.samples // 2)):
            yield number, prompts, labels.random(len(prompts))

    def read(self, item: tuple[int, Ints, Floats]) -> Update:
        s, (number, prompts, uniforms) = self.s, item
        drawn, members = draw_labelled(s, s.policy, "rollouts", number, prompts, uniforms, s.settings.at_once)
        work = [_of_chunk(s, drawn, i, *members) for i in range(len(drawn.rows))]
        self.update = Update(work, rollout_metrics(drawn))
        return self.update


class OfflinePairs(Source):
    """Minibatches of pairs that were drawn and labelled once, before training."""

    def items(self) -> Iterator[Ints]:
        s = self.s
        self.pairs = s.task.pairs if s.task.pairs is not None else kept_pairs(s)
        if s.settings.used.uses_reference and self.pairs.logp_ref is None:
            self.pairs = with_reference(s, self.pairs)
        n = min(s.settings.samples // 2, len(self.pairs))
        yield from permutations(s.rng("batches"), len(self.pairs), n)

    def read(self, item: Ints) -> Update:
        s, size = self.s, self.s.settings.at_once // 2
        parts = [item[a : a + size] for a in range(0, len(item), size)]
        own = [parts[i] for i in s.team.local_chunks(len(parts))]
        self.update = Update([PairWork.of(s.settings.used, s.settings.b, len(item), self.pairs, p) for p in own])
        return self.update


SOURCES: dict[str, type[Source]] = {
    "rollouts": FromPolicy,
    "pairs-online": OnlinePairs,
    "pairs-offline": OfflinePairs,
}


def _of_chunk(s: Session, drawn: Drawn, chunk: int, first: Ints, second: Ints, wins: Bools) -> PairWork:
    """The pairs of one of this process's chunks. Every response is in one pair: its row is where it was."""
    rows, settings, ref = drawn.rows[chunk], s.settings, drawn.rollouts.logp_ref
    here = (first >= rows.start) & (first < rows.stop)
    logp_ref = None if ref is None else ref[rows].sum(1)
    members = first[here] - rows.start, second[here] - rows.start, wins[here]
    pairs = Pairs(drawn.batches[chunk], *members, logp_ref=logp_ref)
    return PairWork.of(settings.used, settings.b, len(first), pairs, np.arange(len(pairs)), drawn.forwards[chunk])


def packed(work: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Rollouts that are not used up, as tensors."""
    drawn: Rollouts = work[0].rollouts
    tensors = tensors_of({**vars(drawn), "shaped": work[0].shaped})
    tensors["rows"] = torch.tensor([(w.rows.start, w.rows.stop) for w in work])
    for i, w in enumerate(work):
        tensors |= w.batch.tensors(f"batch/{i}/")
    return tensors


def unpacked(tensors: Mapping[str, torch.Tensor]) -> tuple[Rollouts, Floats, list[tuple[Batch, slice]]]:
    """Rollouts, shaped rewards, and the chunks with their rows: the inverse of `packed`."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if "/" not in name}
    drawn = Rollouts(arrays["reward"], arrays["logp"], arrays.get("logp_ref"), arrays["mask"])
    rows = [slice(int(a), int(b)) for a, b in arrays["rows"]]
    return drawn, arrays["shaped"], [(Batch.of_tensors(tensors, f"batch/{i}/"), r) for i, r in enumerate(rows)]
