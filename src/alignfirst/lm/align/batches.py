"""What the loop of an alignment does next: responses of the policy now, the same in pairs, or pairs drawn once.

Every source is an endless iterator of updates that can be taken up again after any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from alignfirst.lm.align.coefficients import Rollouts, RolloutWork
from alignfirst.lm.align.pair_batches import Pairs, PairWork
from alignfirst.lm.align.rollouts import (
    Baseline,
    Drawn,
    Session,
    draw_rewarded,
    drawn_once,
    in_pairs,
    of,
    seen,
    tensors_of,
    with_reference,
)
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats, Ints
from alignfirst.lm.text.torch_streams import permutations, skip
from alignfirst.lm.training.checkpoint import State


class Work(Protocol):
    """A chunk of an update."""

    @property
    def batch(self) -> Batch: ...

    @property
    def trace(self) -> SavedForward | None:
        """The way back through the batch, good until the weights move."""
        ...

    def coefficients(self, logp: Floats) -> tuple[Floats, dict[str, Floats]]:
        """log pi of tokens [B, L] -> coefficients of grad log pi [B, L or 1], and numbers to log."""
        ...


@dataclass(frozen=True)
class Update:
    """What the loop does next, and what was seen of it when it was drawn."""

    work: Sequence[Work]
    seen: Mapping[str, float | None] = field(default_factory=dict)


class Source(Protocol):
    """Endless updates. Beside settings and seed it knows how many it gave, and what is in its `state`."""

    update: Update  # the last one

    def __init__(self, s: Session) -> None: ...

    def __next__(self) -> Update: ...

    def state(self, used_up: bool) -> dict[str, Any] | None:
        """Tensors; with the last update, unless that is used up. None where other processes hold part of it."""
        ...

    def restore(self, given: int, state: Mapping[str, Any]) -> None:
        """Be as after so many updates."""
        ...


def source_of(s: Session) -> Source:
    return SOURCES[s.settings.used.data](s)


class Progress:
    """How far an alignment is: what a checkpoint holds beside weights, optimiser and curves."""

    def __init__(self, s: Session, source: Source) -> None:
        self.s, self.source, self.reuse = s, source, s.settings.reuse

    def begins(self, step: int) -> bool:
        """Whether this step needs new responses; PPO goes over its own several times."""
        return step % self.reuse == 0

    def state(self, done: int) -> State | None:
        tensors = self.source.state(used_up=self.begins(done))
        return None if tensors is None else State(self.s.counts(), tensors)

    def restore(self, done: int, state: State) -> None:
        self.source.restore(-(-done // self.reuse), state.tensors)
        self.s.count({name: state.numbers[name] for name in ("samples", "hits")})


class FromPolicy:
    """Groups of responses of the policy as it is now, with their rewards."""

    def __init__(self, s: Session) -> None:
        settings = s.settings
        self.s, self.given, self.update = s, 0, Update(())
        self.prompts = permutations(s.rng("prompts"), len(s.task.prompts), settings.samples // settings.group_size)
        self.baseline = Baseline(s) if settings.used.critic else None

    def __next__(self) -> Update:
        s, settings, baseline = self.s, self.s.settings, self.baseline
        beta = settings.beta if settings.kl_in == "reward" else 0.0
        which = np.repeat(next(self.prompts), settings.group_size)
        drawn = draw_rewarded(s, s.policy, "rollouts", self.given, which, settings.chunk or settings.samples)
        shaped = drawn.rollouts.returns(beta, settings.level)
        if baseline is not None:
            shaped = shaped - baseline(drawn, shaped)
        noted = seen(s, drawn) | ({} if baseline is None else {"value_explains": baseline.explains})
        self.update = Update(self._work(drawn.rollouts, shaped, drawn.batches, drawn.rows, drawn.traces), noted)
        self.given += 1
        return self.update

    def _work(
        self,
        drawn: Rollouts,
        shaped: Floats,
        batches: Sequence[Batch],
        rows: Sequence[slice],
        traces: Sequence[SavedForward | None],
    ) -> list[Work]:
        return [
            RolloutWork(self.s.settings, drawn, shaped, batch, r, trace)
            for batch, r, trace in zip(batches, rows, traces, strict=True)
        ]

    def state(self, used_up: bool) -> dict[str, Any] | None:
        learned = {} if self.baseline is None else self.baseline.critic.state()
        if used_up:
            return learned
        return None if self.s.team.size > 1 else learned | packed(self.update.work)

    def restore(self, given: int, state: Mapping[str, Any]) -> None:
        skip(self.prompts, given)
        self.given = given
        if self.baseline is not None:
            self.baseline.critic.restore(state)
        if "shaped" in state:
            drawn, shaped, batches, rows = unpacked(state)
            self.update = Update(self._work(drawn, shaped, batches, rows, [None] * len(rows)))


class OnlinePairs:
    """Pairs of the policy as it is now, labelled on the spot."""

    def __init__(self, s: Session) -> None:
        self.s, self.given, self.update = s, 0, Update(())
        self.prompts = permutations(s.rng("prompts"), len(s.task.prompts), s.settings.samples // 2)
        self.labels = s.rng("labels")

    def __next__(self) -> Update:
        s, size = self.s, self.s.settings.chunk or self.s.settings.samples
        which, first, second = in_pairs(next(self.prompts), size)
        drawn = draw_rewarded(s, s.policy, "rollouts", self.given, which, size)
        likely = s.settings.labels.probability(*of(drawn.rollouts.reward, first, second))
        wins = self.labels.random(len(first)) < likely
        self.update = Update(
            [_online(s, drawn, i, first, second, wins) for i in range(len(drawn.rows))], seen(s, drawn)
        )
        self.given += 1
        return self.update

    def state(self, used_up: bool) -> dict[str, Any]:
        return {}

    def restore(self, given: int, state: Mapping[str, Any]) -> None:
        for _ in range(given):
            self.labels.random(len(next(self.prompts)))
        self.given = given


class OfflinePairs:
    """Minibatches of pairs that were drawn and labelled once, before training."""

    def __init__(self, s: Session) -> None:
        self.s, self.update = s, Update(())
        self.pairs: Pairs | None = None

    def __next__(self) -> Update:
        s, pairs = self.s, self._ready()
        n = min(s.settings.samples // 2, len(pairs))
        size = (s.settings.chunk or s.settings.samples) // 2
        picks = next(self.picks)
        parts = [picks[a : a + size] for a in range(0, n, size)]
        own = [parts[i] for i in s.team.local_chunks(len(parts))]
        self.update = Update([PairWork.of(s.settings.used, s.settings.b, n, pairs, p) for p in own])
        return self.update

    def _ready(self) -> Pairs:
        if self.pairs is None:
            s = self.s
            pairs = s.task.pairs if s.task.pairs is not None else drawn_once(s)
            if s.settings.used.uses_reference and pairs.logp_ref is None:
                pairs = with_reference(s, pairs)
            self.pairs = pairs
            self.picks = permutations(s.rng("batches"), len(pairs), min(s.settings.samples // 2, len(pairs)))
        return self.pairs

    def state(self, used_up: bool) -> dict[str, Any]:
        return {}

    def restore(self, given: int, state: Mapping[str, Any]) -> None:
        self._ready()
        skip(self.picks, given)


SOURCES: dict[str, type[Source]] = {
    "rollouts": FromPolicy,
    "pairs-online": OnlinePairs,
    "pairs-offline": OfflinePairs,
}


def _online(s: Session, drawn: Drawn, chunk: int, first: Ints, second: Ints, wins: Bools) -> PairWork:
    """The pairs of one of this process's chunks."""
    rows, settings = drawn.rows[chunk], s.settings
    here = (first >= rows.start) & (first < rows.stop)
    ref = drawn.rollouts.logp_ref
    logp_ref = None if ref is None else ref[rows].sum(1)
    pairs = Pairs(
        drawn.batches[chunk], first[here] - rows.start, second[here] - rows.start, wins[here], logp_ref=logp_ref
    )
    work = PairWork.of(settings.used, settings.b, len(first), pairs, np.arange(len(pairs)))
    return replace(work, trace=drawn.traces[chunk])  # every response is in one pair: rows are where they were


def packed(work: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Rollouts that are not used up, as tensors."""
    drawn: Rollouts = work[0].rollouts
    arrays = {name: getattr(drawn, name) for name in ("reward", "logp", "logp_ref", "mask")}
    tensors = tensors_of(
        arrays | {"shaped": work[0].shaped, "rows": np.array([(w.rows.start, w.rows.stop) for w in work])}
    )
    for i, w in enumerate(work):
        tensors |= {f"batch/{i}/{name}": getattr(w.batch, name) for name in ("tokens", "start", "mask")}
    return tensors


def unpacked(state: Mapping[str, torch.Tensor]) -> tuple[Rollouts, Floats, list[Batch], list[slice]]:
    """Inverse of `packed`."""
    arrays = {name: tensor.numpy() for name, tensor in state.items() if "/" not in name}
    drawn = Rollouts(arrays["reward"], arrays["logp"], arrays.get("logp_ref"), arrays["mask"])
    rows = [slice(int(a), int(b)) for a, b in arrays["rows"]]
    batches = [Batch(*(state[f"batch/{i}/{name}"] for name in ("tokens", "start", "mask"))) for i in range(len(rows))]
    return drawn, arrays["shaped"], batches, rows
