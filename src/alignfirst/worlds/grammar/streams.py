"""Random streams by name, see `alignfirst.worlds.random_streams`.

Cells of one seed share the noise of a purpose whatever their beta, algorithm or recipe: differences between them are
then less noisy. What models are measured on is drawn by the language alone: the same held-out text for every seed.
"""

from __future__ import annotations

from typing import Literal, get_args

from alignfirst.worlds.random_streams import Streams

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
_STREAMS: Streams[Purpose] = Streams(get_args(Purpose))
generator, number = _STREAMS.generator, _STREAMS.number
