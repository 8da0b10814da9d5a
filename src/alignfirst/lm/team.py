"""Several processes that train one model. One process alone pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.shard import Shards

BUCKET = 1 << 26  # numbers in one reduction of gradients: 256 MB in float32
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
        """One backward pass of this process is over, the same number in all: what is sharded is summed at once."""

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

    def owners(self, sizes: Sequence[int]) -> list[int]:
        """Which process keeps what there is to keep of each of several things: about as much for every one."""
        held = [0] * self.size
        found = []
        for size in sizes:
            found.append(held.index(min(held)))
            held[found[-1]] += size
        return found

    def told_by(self, owner: int, tensor: Any) -> Any:
        """A tensor as its owner has it; the others give one of its shape and type."""
        return tensor

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        """Replace every process's gradients by their sum."""

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        """The parameters of a training, shared out, until `release`; None where every process has whole gradients."""
        return None

    def release(self) -> None:
        """The training is over."""

    def agree(self, failure: StageFailure | None) -> None:
        """Raise on every process what went wrong on any: otherwise the others would wait for ever."""
        if failure is not None:
            raise failure


class Accelerated(Team):
    """The processes of an `accelerate.Accelerator` (any backend it supports).

    Gradients are summed after the backward passes, in reductions of flat tensors of up to `BUCKET` numbers. Wrapping
    the model for overlapping reductions, or sharding weights, was left out: it changes what sampling and scoring see.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
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

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        for p in parameters:
            if p.grad is None:  # every process must send the same layout
                p.grad = torch.zeros_like(p)
        for some in buckets(parameters):
            flat = torch.cat([p.grad.flatten() for p in some])
            flat = self.accelerator.reduce(flat, reduction="sum")
            torch._foreach_copy_(
                [p.grad for p in some],
                [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in some]), some, strict=True)],
            )

    def told_by(self, owner: int, tensor: Any) -> Any:
        from accelerate.utils import broadcast

        here = tensor.detach().to(self.accelerator.device).contiguous()
        return broadcast(here, from_process=owner)

    def agree(self, failure: StageFailure | None) -> None:
        for words in self.collect(None if failure is None else str(failure)):
            if words is not None:
                raise StageFailure(words) from failure


class Sharded(Accelerated):
    """Processes that share out gradients, too, number by number (`lm.shard`)."""

    _shards: Shards | None = None

    def shards(self, parameters: Sequence[Any]) -> Shards | None:
        self._shards = Shards(parameters, self.rank, self.size)
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


def buckets(parameters: Sequence[Any]) -> Iterator[list[Any]]:
    """Consecutive parameters of one type, together at most BUCKET numbers or one parameter."""
    some: list[Any] = []
    for p in parameters:
        if some and (p.dtype != some[0].dtype or sum(q.numel() for q in some) + p.numel() > BUCKET):
            yield some
            some = []
        some.append(p)
    if some:
        yield some


ALONE = Team()
