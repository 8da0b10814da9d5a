"""Random streams by name, keyed by seed and purpose, so that no two ever share a number.

Cells of one seed share the noise of a purpose whatever their beta, algorithm or recipe. What models are measured on
does not depend on the seed: the same held-out rows and the same noise for every model.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

Purpose = Literal[
    "rows",  # which training rows are used, and in which order
    "sft",
    "distil",
    "distil-start",
    "align",
    "rehearsal",
    "held-out",
    "own-samples",
    "teacher-samples",
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
