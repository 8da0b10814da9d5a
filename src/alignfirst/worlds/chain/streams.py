"""Random streams by name, see `alignfirst.worlds.random_streams`.

What p_star draws, and what models are measured on, is drawn once for all seeds: seed 0 of its purpose.
"""

from __future__ import annotations

from typing import Literal, get_args

from alignfirst.worlds.random_streams import Streams

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
_STREAMS: Streams[Purpose] = Streams(get_args(Purpose))
number = _STREAMS.number
