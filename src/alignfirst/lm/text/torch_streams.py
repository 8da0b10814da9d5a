"""Random streams by name, keyed by seed and purpose, so that no two ever share a number.

Cells of one seed share their noise whatever their beta, algorithm or recipe. A stream belongs to a chunk of an
update, not to a process: two processes that share an update draw what one would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, Philox, SeedSequence
from numpy.typing import NDArray

PURPOSES = ("rollouts", "pairs", "labels", "batches", "prompts", "probe", "value", "teacher", "student", "rehearsal")


def stream(seed: int, purpose: str, *place: int) -> Generator:
    """NumPy's generator of one purpose; `place` tells apart stages, updates, chunks."""
    return Generator(Philox(SeedSequence((seed, PURPOSES.index(purpose), *place))))


def torch_stream(seed: int, purpose: str, *place: int) -> torch.Generator:
    """torch's generator of one purpose, on the CPU; `place` tells apart stages, updates, chunks."""
    state = SeedSequence((seed, PURPOSES.index(purpose), *place)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def permutations(rng: Generator, n: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Endless picks [size] of 0..n-1: a fresh permutation an epoch, so that all are used equally."""
    left = np.empty(0, np.int64)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(n)])
        yield left[:size]
        left = left[size:]


def skip(iterator: Iterator[Any], n: int) -> None:
    """Go past n items, as if they had been used."""
    deque(islice(iterator, n), maxlen=0)
