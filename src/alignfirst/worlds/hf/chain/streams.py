"""Random streams by name, keyed by seed and purpose, so that no two ever share a number.

What p_star draws, and what models are measured on, is drawn once for all seeds: seed 0 of its purpose.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.random import SeedSequence

Purpose = Literal[
    "counted",  # p_star: which tokens it uses most
    "data",  # p_star: what sft learns from
    "held-out",  # p_star: what chooses sft's checkpoint
    "target-data",  # p_star at the target's temperature
    "target-held-out",
    "target-start",
    "target",
    "calibration",  # the target model's own texts, which set the level c
    "measured",  # p_star: for recalls
    "target-text",  # the target model: for recalls
    "rehearsal",  # the target model: mixed into a distillation
    "sft-start",
    "sft",
    "teacher",  # a teacher's texts
    "teacher-held-out",
    "distil-start",
    "distil",
    "align",
    "own",  # of a model that is measured
]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def number(seed: int, purpose: Purpose, *place: int) -> int:
    """A seed for a library that wants a number of its own, below 2^63; `place` tells shards and occurrences apart."""
    sequence = SeedSequence((seed, _PURPOSES.index(purpose), *place))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
