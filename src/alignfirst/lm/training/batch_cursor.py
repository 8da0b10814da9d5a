"""Where a training is in what it learns from: one cursor for every kind of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from alignfirst.errors import InputError
from alignfirst.lm.text.torch_streams import skip
from alignfirst.lm.training.checkpoint import State

T = TypeVar("T")


class ExtraState(Protocol):
    """What of a training cannot be found again by going through its items, such as weights that were best so far."""

    def state(self, used_up: bool) -> State | None:
        """What a checkpoint must hold now. `used_up`: the last item has served all its updates, and need not be kept.

        None where this process cannot tell it: no checkpoint is written then. Cheap: no copies.
        """
        ...

    def restore(self, state: State) -> None:
        """Be as `state` said."""
        ...


class BatchCursor(Generic[T]):
    """Items in their order, one for every `reuse` updates, taken up again by a training that is resumed.

    `items` gives the same whenever it is made anew: batches, or what is cheap to go past (row numbers, prompts, random
    numbers), which `read` turns into what an update needs. A resumed training goes past the items that were used and
    reads none of them; what that does not bring back is `extra` state, kept in the checkpoint. For `Loop.steps`.
    """

    def __init__(
        self,
        items: Iterator[Any],
        read: Callable[[Any], T] | None = None,
        reuse: int = 1,
        extra: ExtraState | None = None,
    ) -> None:
        self.items, self.read, self.reuse, self.extra, self.taken = items, read, reuse, extra, 0

    def begins(self, update: int) -> bool:
        """Whether this update, counted from 0, needs a new item."""
        return update % self.reuse == 0

    def __next__(self) -> T:
        """The next item, read. Raises InputError where there is none."""
        item = next(self.items, None)
        if item is None:
            raise InputError("there must be a batch for every update", self.taken, "Repeat the data, or ask for fewer.")
        self.taken += 1
        return item if self.read is None else self.read(item)

    def state(self, done: int) -> State | None:
        """What a checkpoint after `done` updates must hold beside their number."""
        return State() if self.extra is None else self.extra.state(used_up=self.begins(done))

    def restore(self, done: int, state: State) -> None:
        """Be where a new cursor is after `done` updates; `state` is what `state` said then."""
        self.taken = -(-done // self.reuse)
        skip(self.items, self.taken)
        if self.extra is not None:
            self.extra.restore(state)
