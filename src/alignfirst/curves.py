"""Training curves as a report shows them: few points, each the mean over a block of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

POINTS = 36  # of a curve
DIGITS = 4
Curve = Sequence[float | None]


def thinned(curves: Mapping[str, Curve], names: Sequence[str], updates: int) -> dict[str, list[float | None]]:
    """The named curves, one value an update, as at most POINTS points; None where a block measured nothing.

    `update` is where each block ends, counted from 1.
    """
    blocks = np.array_split(np.arange(updates), min(POINTS, updates))
    kept = {name: [_mean([curves[name][u] for u in block]) for block in blocks] for name in names if name in curves}
    return {"update": [float(block[-1] + 1) for block in blocks], **kept}


def _mean(values: Curve) -> float | None:
    there = [v for v in values if v is not None]
    return None if not there else float(f"{np.mean(there):.{DIGITS}g}")
