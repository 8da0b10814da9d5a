"""Training curves as a report shows them: few points, each the mean over a block of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def shown(meta: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Named curves of a trained model's metadata, thinned; {} of one that was not trained.

    `target_share`, where draws of T were counted: their share of the responses that an update drew.
    """
    found: dict[str, Curve] = dict(meta["curves"])
    if "target_draws" in found:
        found["target_share"] = [None if v is None else v / meta["drawn_an_update"] for v in found["target_draws"]]
    return thinned(found, names, int(meta["updates"])) if meta["updates"] else {}


def _mean(values: Curve) -> float | None:
    there = [v for v in values if v is not None]
    return None if not there else float(f"{np.mean(there):.{DIGITS}g}")
