"""Several processes that train one model. One process alone pays nothing for it."""

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
    """One process alone. What a process does not do itself, it does not pay for."""

    rank, size = 0, 1

    def share(self, chunks: int) -> range:
        """Which of an update's chunks are this process's: consecutive ones, in the order of ranks."""
        if chunks % self.size:
            rule = f"an update must have a multiple of {self.size} chunks, one for every process"
            raise InputError(rule, chunks, "Set `chunk` so that samples / chunk is such a multiple.")
        each = chunks // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def deal(self, parts: Sequence[T]) -> Sequence[T]:
        """This process's parts of any number, in turns: for work whose sum is all that matters."""
        return parts[self.rank :: self.size]

    def passes(self, parts: Sequence[T]) -> Iterator[T]:
        """The same, each for one backward pass."""
        yield from self.deal(parts)

    def passed(self) -> None:
        """One backward pass of this process is over; all have the same number of them."""

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """All processes' values under each other, in the order of ranks: [n, ...] -> [size n, ...]."""
        return values

    def sum(self, value: float) -> float:
        return float(self.gather(np.array([value])).sum())

    def collect(self, value: T) -> list[T]:
        """What every process has to say, in the order of ranks."""
        return [value]

    def spread(self, parts: Sequence[S], work: Callable[[S], T]) -> list[T]:
        """What `work` makes of every part: made by the processes in turns, and told to all."""
        told = self.collect([work(part) for part in self.deal(parts)])
        return [told[i % self.size][i // self.size] for i in range(len(parts))]

    def tell(self, value: Any) -> Any:
        """What the first process says, on all."""
        return value

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        """The parameters of a training, shared out, until `release`; None for one process alone."""
        return None

    def release(self) -> None:
        """The training is over."""

    def agree(self, failure: StageFailure | None) -> None:
        """Raise on every process what went wrong on any: otherwise the others would wait for ever."""
        if failure is not None:
            raise failure


class Accelerated(Team):
    """The processes of an `accelerate.Accelerator` (any backend of `torch.distributed`).

    They share AdamW's moments and its step, number by number. Gradients are summed at the end of an update; with
    `every_pass` after each backward pass, and then no process holds all of them (`lm.shard`).
    """

    _shards: Shards | None = None

    def __init__(self, accelerator: Any, every_pass: bool = False) -> None:
        self.accelerator, self.every_pass = accelerator, every_pass
        self.rank, self.size = accelerator.process_index, accelerator.num_processes

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        local = torch.from_numpy(np.ascontiguousarray(values)).to(self.accelerator.device)
        return np.asarray(self.accelerator.gather(local).cpu().numpy())

    def tell(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def collect(self, value: T) -> list[T]:
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def agree(self, failure: StageFailure | None) -> None:
        for words in self.collect(None if failure is None else str(failure)):
            if words is not None:
                raise StageFailure(words) from failure

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        self._shards = Shards(parameters, self.rank, self.size, self.every_pass)
        return self._shards

    def release(self) -> None:
        if self._shards is not None:
            self._shards.close()
            self._shards = None

    def passes(self, parts: Sequence[T]) -> Iterator[T]:
        """Those that have no part left when others do take part in their sums."""
        own = self.deal(parts)
        for part in own:
            yield part
            self.passed()
        for _ in range(-(-len(parts) // self.size) - len(own)):
            self.passed()

    def passed(self) -> None:
        if self._shards is not None:
            self._shards.passed()


ALONE = Team()
