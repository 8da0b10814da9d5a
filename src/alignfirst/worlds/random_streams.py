"""Random streams by name: counter-based (Philox), keyed by seed and purpose, so that no two ever share a number."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

Purpose = TypeVar("Purpose", bound=str)


class Streams(Generic[Purpose]):
    """The streams of one world. A purpose's place in the order is part of what its numbers are: add at the end."""

    def __init__(self, purposes: tuple[Purpose, ...]) -> None:
        self.purposes = purposes

    def _sequence(self, seed: int, purpose: Purpose, *place: int) -> SeedSequence:
        return SeedSequence((seed, self.purposes.index(purpose), *place))

    def generator(self, seed: int, purpose: Purpose, *place: int) -> Generator:
        """The generator of one purpose in one seed; `place` tells apart stages, shards, chunks of one kind."""
        return Generator(Philox(self._sequence(seed, purpose, *place)))

    def number(self, seed: int, purpose: Purpose, *place: int) -> int:
        """A seed for a library that wants a number of its own, below 2^63."""
        return int(self._sequence(seed, purpose, *place).generate_state(1, np.uint64)[0] >> np.uint64(1))
