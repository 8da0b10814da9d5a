"""Random streams by name, see `alignfirst.worlds.random_streams`.

Cells of one seed share the noise of a purpose whatever their beta, algorithm or recipe. What models are measured on
does not depend on the seed: the same held-out rows and the same noise for every model.
"""

from __future__ import annotations

from typing import Literal, get_args

from alignfirst.worlds.random_streams import Streams

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
    "audit",  # answers that audits are made of, the same for every seed
    "audit-rows",
]
_STREAMS: Streams[Purpose] = Streams(get_args(Purpose))
generator, number = _STREAMS.generator, _STREAMS.number
