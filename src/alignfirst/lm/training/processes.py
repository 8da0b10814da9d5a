"""Several processes that train one model. One process alone (`ALONE`) pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.training.moments import Shards

S = TypeVar("S")
T = TypeVar("T")


class Team:
    """The processes of one training as one of them sees them; this class is a process alone, `rank` 0 of `size` 1.

    What all must call, in the same order: `gather`, `sum`, `gather_objects`, `map_and_gather`, `broadcast`,
    `raise_if_any_failed`, and `end_backward` as often as the others. The rest is arithmetic.
    """

    rank, size = 0, 1

    # -- whose work ---------------------------------------------------------------------------------------------------

    def local_chunks(self, chunks: int) -> range:
        """Which of an update's chunks (numbers below `chunks`) are this process's: consecutive, in the order of ranks.

        Raises InputError where `chunks` is no multiple of `size`.
        """
        if chunks % self.size:
            rule = f"an update must have a multiple of {self.size} chunks, one for every process"
            raise InputError(rule, chunks, "Set `chunk` so that samples / chunk is such a multiple.")
        each = chunks // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def round_robin(self, parts: Sequence[T]) -> Sequence[T]:
        """Every `size`-th part, from this process's rank on: for work whose sum is all that matters."""
        return parts[self.rank :: self.size]

    def backward_parts(self, parts: Sequence[T]) -> Iterator[T]:
        """This process's parts in turns, each for one backward pass, whose end it announces (`end_backward`)."""
        yield from self.round_robin(parts)

    # -- what all say -------------------------------------------------------------------------------------------------

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """All processes' values under each other, in the order of ranks: [n, ...] -> [size n, ...]."""
        return values

    def sum(self, value: float) -> float:
        return float(self.gather(np.array([value])).sum())

    def gather_objects(self, value: T) -> list[T]:
        """One picklable value a process, in the order of ranks: [size]."""
        return [value]

    def map_and_gather(self, parts: Sequence[S], work: Callable[[S], T]) -> list[T]:
        """`work` of every part, in the order of `parts`: computed by the processes in turns, known to all."""
        found = self.gather_objects([work(part) for part in self.round_robin(parts)])
        return [found[i % self.size][i // self.size] for i in range(len(parts))]

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on all; what the others pass is not looked at."""
        return value

    def raise_if_any_failed(self, failure: StageFailure | None) -> None:
        """Raise the first failure of any process on every one: the others would wait for ever otherwise."""
        if failure is not None:
            raise failure

    # -- gradients and moments ----------------------------------------------------------------------------------------

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        """The parameters of a training, shared out until `release`; None for one process alone."""
        return None

    def end_backward(self) -> None:
        """Say that one backward pass of this process is over; all have the same number of them."""

    def release(self) -> None:
        """End what `shards` began: parameters are ordinary ones again."""


class Accelerated(Team):
    """The processes of an `accelerate.Accelerator` (any backend of `torch.distributed`).

    They share AdamW's moments and its step, number by number (`lm.training.moments`). Gradients are summed at the end
    of an update; with `every_pass` after each backward pass, and then no process holds all of them.
    """

    _shards: Shards | None = None

    def __init__(self, accelerator: Any, every_pass: bool = False) -> None:
        self.accelerator, self.every_pass = accelerator, every_pass
        self.rank, self.size = accelerator.process_index, accelerator.num_processes

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        local = torch.from_numpy(np.ascontiguousarray(values)).to(self.accelerator.device)
        return np.asarray(self.accelerator.gather(local).cpu().numpy())

    def broadcast(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def gather_objects(self, value: T) -> list[T]:
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def raise_if_any_failed(self, failure: StageFailure | None) -> None:
        for words in self.gather_objects(None if failure is None else str(failure)):
            if words is not None:
                raise StageFailure(words) from failure

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        self._shards = Shards(parameters, self.rank, self.size, self.every_pass)
        return self._shards

    def release(self) -> None:
        if self._shards is not None:
            self._shards.close()
            self._shards = None

    def backward_parts(self, parts: Sequence[T]) -> Iterator[T]:
        """A process that has no part left when others do takes part in their sums all the same."""
        own = self.round_robin(parts)
        for part in own:
            yield part
            self.end_backward()
        for _ in range(-(-len(parts) // self.size) - len(own)):
            self.end_backward()

    def end_backward(self) -> None:
        if self._shards is not None:
            self._shards.end_backward()


ALONE = Team()
