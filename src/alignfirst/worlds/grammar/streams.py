"""Random streams by name: counter-based (Philox), keyed by seed and purpose, so that no two ever share a number.

Cells of one seed share the noise of a purpose whatever their beta, algorithm or recipe: differences between them are
then less noisy. What models are measured on is drawn by the language alone: the same held-out text for every seed.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

Purpose = Literal[
    "language",  # the chains themselves
    "sft-data",
    "sft-start",
    "distil",  # teacher samples, the order they are seen in, student samples
    "distil-start",
    "rehearsal",
    "align",  # rollouts, pairs, labels, batches
    "held-out",  # samples of p_star and p_target that models are measured on
    "own-samples",  # of a model that is measured
    "texts",  # shown in the report
]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def _sequence(seed: int, purpose: Purpose, occurrence: int) -> SeedSequence:
    return SeedSequence((seed, _PURPOSES.index(purpose), occurrence))


def generator(seed: int, purpose: Purpose, occurrence: int = 0) -> Generator:
    """The generator of one purpose in one seed; `occurrence` tells apart stages of one kind in a recipe."""
    return Generator(Philox(_sequence(seed, purpose, occurrence)))


def number(seed: int, purpose: Purpose, occurrence: int = 0) -> int:
    """A seed for a library that wants a number of its own, below 2^63."""
    return int(_sequence(seed, purpose, occurrence).generate_state(1, np.uint64)[0] >> np.uint64(1))
