"""The updates of one training: the optimiser's steps, the curves, and checkpoints in between.

What is drawn in an update is keyed by its number (`lm.streams`), and the order of data is found again by going through
it, so that of all random state only the number of updates has to be kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

import torch

from alignfirst import version
from alignfirst.lm.training.batch_cursor import BatchCursor
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Log, Tally, TrainingCurves
from alignfirst.lm.training.optim import Optimiser, OptimSettings
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.signals import INTERRUPTS, deferred, terminable

EXTRA = "extra/"  # before the names of the cursor's tensors
Look = Callable[[], Mapping[str, float | None]]


class Loop:
    """The loop of a training; `steps` gives the updates that are left, and `step` ends each.

    As a context it sees interrupts: with checkpoints, one is written before the process leaves. `identity` is what the
    training depends on; checkpoints of another one are put aside.
    """

    def __init__(
        self,
        model: Any,
        optim: OptimSettings,
        updates: int,
        identity: object,
        tally: Tally,
        log: Log | None = None,
        checkpoints: Checkpoints | None = None,
        team: Team = ALONE,
    ) -> None:
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.optimiser = Optimiser(model.parameters(), optim, updates, team)
        self.recorded, self.tally, self.updates, self.done = TrainingCurves(log), tally, updates, 0
        self.checkpoints, self.team = checkpoints, team
        self.identity = identity if checkpoints is None else self._fingerprint(identity)
        self._cursor: BatchCursor[Any] | None = None
        self._snapshot: tuple[State | None, Tally] | None = None  # what is true after `done` updates
        self._signals = ExitStack()
        self._written = 0
        self._consistent = True  # weights, moments, curves and count are those of one update

    # -- the loop ---------------------------------------------------------------------------------------------------

    def steps(self, cursor: BatchCursor[Any]) -> Iterator[int]:
        """Numbers of the updates to do, from where the last sound checkpoint ended; the cursor is moved to there."""
        if self.checkpoints is not None:
            self._cursor = cursor
            self._resume(self.checkpoints, cursor)
        while self.done < self.updates:
            if self.checkpoints is not None:
                self._take_snapshot()
                if self._unwritten and self.team.broadcast(self.checkpoints.due(self.done)):
                    self._write(self.checkpoints)
            yield self.done

    def step(self, seen: Mapping[str, float | None], then: Look | None = None) -> None:
        """Take the optimiser's step and record what was seen, and what `then` sees of the model after it.

        Raises StageFailure, see `Optimiser.step`.
        """
        if self.checkpoints is None:
            self._step(seen, then)
            return
        with deferred():
            self._consistent, self._snapshot = False, None
            self._step(seen, then)
            self._consistent = True

    def _step(self, seen: Mapping[str, float | None], then: Look | None) -> None:
        norm = self.optimiser.step()
        self.recorded.add({**seen, "grad_norm": norm, **({} if then is None else then())})
        self.done += 1

    # -- interrupts -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Loop:
        if self.checkpoints is not None:
            self._signals.enter_context(terminable())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            alone = self.team.size == 1  # others may be waiting elsewhere: what they know cannot be asked for any more
            if isinstance(error, INTERRUPTS) and self.checkpoints is not None and self._cursor is not None and alone:
                self._leave(self.checkpoints)
        finally:
            self.optimiser.close()
            self._signals.close()

    def _leave(self, checkpoints: Checkpoints) -> None:
        """Write what was true before the update that was cut short: until its end it changes no weight."""
        if self._consistent and self._unwritten:
            if self._snapshot is None:
                self._take_snapshot()
            self._write(checkpoints)

    @property
    def _unwritten(self) -> bool:
        return self.done > self._written

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def _take_snapshot(self) -> None:
        assert self._cursor is not None
        self._snapshot = self._cursor.state(self.done), replace(self.tally)

    def _write(self, checkpoints: Checkpoints) -> None:
        assert self._snapshot is not None
        extra_state, tally = self._snapshot
        if extra_state is None:
            return
        tally = tally.over(self.team)
        moments = dict(self.optimiser.moments())
        if self.team.rank == 0:
            numbers = {
                "identity": self.identity,
                "curves": self.recorded.curves,
                "tally": asdict(tally),
                "extra_state": dict(extra_state.numbers),
            }
            tensors = {f"weight/{name}": p.detach() for name, p in self.named}
            for name, p in self.named:
                tensors |= {f"adam/{kind}/{name}": value for kind, value in moments[p].items()}
            tensors |= {f"{EXTRA}{name}": value for name, value in extra_state.tensors.items()}
            checkpoints.write(self.done, State(numbers, tensors))
        self._written = self.done

    def _resume(self, checkpoints: Checkpoints, cursor: BatchCursor[Any]) -> None:
        """Rank 0 chooses; the others read what it has verified."""
        found = checkpoints.newest() if self.team.rank == 0 else None
        if found is not None and found[1].numbers["identity"] != self.identity:
            checkpoints.set_aside("is of another training (other settings or another version)")
            found = None
        update = self.team.broadcast(None if found is None else found[0])
        if update is None:
            return
        state = found[1] if found is not None else checkpoints.read(update)
        assert state is not None
        self._restore(update, state)
        tensors = {n.removeprefix(EXTRA): t for n, t in state.tensors.items() if n.startswith(EXTRA)}
        tally = state.numbers["tally"]
        cursor.restore(update, State(state.numbers["extra_state"], tensors))
        # the cursor may count what it does, so the tally comes after it
        self.tally.set(tally if self.team.rank == 0 else asdict(Tally()))

    @torch.no_grad()
    def _restore(self, update: int, state: State) -> None:
        for name, p in self.named:
            p.copy_(state.tensors[f"weight/{name}"])
        kinds: dict[str, dict[str, Any]] = {}
        for key, tensor in state.tensors.items():
            if key.startswith("adam/"):
                _, kind, name = key.split("/", 2)
                kinds.setdefault(name, {})[kind] = tensor
        for name, p in self.named:
            if name in kinds:
                self.optimiser.restore(p, kinds[name])
        self.recorded.curves = {name: list(curve) for name, curve in state.numbers["curves"].items()}
        self.recorded.updates = self.optimiser.done = self.done = self._written = update

    def _fingerprint(self, identity: object) -> str:
        shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in self.named]
        text = repr((identity, self.optimiser.settings, self.updates, shapes, version.__version__))
        return hashlib.sha256(text.encode()).hexdigest()
