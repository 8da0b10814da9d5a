"""Statistics over seeds: what each cell gave, recipes paired by seed, claims judged, the trap's window.

Deterministic functions from records to JSON-safe dicts. Reads rows, never models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignfirst.records import Row
from alignfirst.stats.audited import audited
from alignfirst.stats.cells import cells
from alignfirst.stats.claims import CLAIMS, Claim, claims
from alignfirst.stats.columns import METRICS
from alignfirst.stats.matched import matched_spread
from alignfirst.stats.paired import pairs, recipes
from alignfirst.stats.windows import windows

STATISTICS_VERSION = 2

__all__ = [
    "CLAIMS",
    "METRICS",
    "STATISTICS_VERSION",
    "Claim",
    "audited",
    "cells",
    "claims",
    "matched_spread",
    "pairs",
    "recipes",
    "summarise",
    "windows",
]


def summarise(rows: Sequence[Row], varied: Sequence[str] = ()) -> dict[str, Any]:
    """The whole content of a run's `statistics.json`."""
    return {
        "statistics_version": STATISTICS_VERSION,
        "cells": cells(rows, varied),
        "pairs": pairs(rows, varied),
        "recipes": recipes(rows, varied),
        "claims": claims(rows, varied),
        "windows": windows(rows, varied),
        "matched_spread": matched_spread(rows, varied),
        "audited": audited(rows),
    }
