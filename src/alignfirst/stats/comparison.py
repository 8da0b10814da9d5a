"""Two runs side by side: what their configs say differently, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import KEYS, METRICS, number
from alignfirst.stats.intervals import PairedTest, describe, paired_t
from alignfirst.stats.paired import Match, constant_note, join, match, seed_notes

NAMING = ("name", "preset", "description", "vary")


class ComparedConfig(Protocol):
    """What is read of a study's config."""

    @property
    def vary(self) -> Mapping[str, Any]: ...

    def value(self, key: str) -> Any: ...

    @property
    def seed_list(self) -> Sequence[int]: ...

    def resolved(self) -> dict[str, Any]: ...


class ComparedRun(Protocol):
    """What is read of a run."""

    @property
    def config(self) -> ComparedConfig: ...

    @property
    def records(self) -> Sequence[Row]: ...


@dataclass(frozen=True)
class Comparison:
    """`differences`: one dict per cell, stage and metric that both runs have, with `right` minus `left`."""

    differences: list[dict[str, Any]]
    config: dict[str, tuple[Any, Any]]  # dotted key -> its value or values in left, in right
    only_left: int  # cells and stages without a number in the other run
    only_right: int


def compare(left: ComparedRun, right: ComparedRun) -> Comparison:
    """Differences of means at every stage, paired by the seeds that both runs have (a t interval from 5 on).

    A key that only one run varies is looked up in the other's config, so that a point of one finds its match in the
    other. Where no seed is shared, the difference is that of the two means, without an interval.
    """
    varied = list(dict.fromkeys([*left.config.vary, *right.config.vary]))
    columns = ("any", *METRICS)
    matched = match(_rows(right, varied), _rows(left, varied), (*varied, *KEYS), columns)
    in_right, in_left = ((~np.isnan(side["any"])).any(-1) for side in (matched.left, matched.right))
    both = np.flatnonzero(in_left & in_right).tolist()
    by_metric = [_of_metric(matched, metric, both) for metric in METRICS]
    return Comparison(
        [row for rows in zip(*by_metric, strict=True) for row in rows if row is not None],
        _config_differences(left.config, right.config),
        only_left=int((in_left & ~in_right).sum()),
        only_right=int((in_right & ~in_left).sum()),
    )


def _rows(run: ComparedRun, varied: Sequence[str]) -> list[Row]:
    """Rows with every varied key, and a column that is there wherever the row is ok."""
    fixed = {key: run.config.value(key) for key in varied if key not in run.config.vary}
    return [{**row, **fixed, "any": 0.0} for row in run.records]


def _of_metric(matched: Match, metric: str, groups: Sequence[int]) -> list[dict[str, Any] | None]:
    """One dict per group; None where a side has no number for this metric."""
    right, left = matched.left[metric], matched.right[metric]
    test = paired_t(right, left)
    shared = ~np.isnan(right) & ~np.isnan(left)
    paired = shared.any(-1, keepdims=True)
    means = [describe(np.where(shared | ~paired, side, np.nan)).mean for side in (left, right)]
    return [_row(matched, metric, g, test, float(means[0][g]), float(means[1][g])) for g in groups]


def _row(
    matched: Match, metric: str, g: int, test: PairedTest, mean_left: float, mean_right: float
) -> dict[str, Any] | None:
    if np.isnan(mean_left) or np.isnan(mean_right):
        return None
    n = int(test.n[g])
    notes = seed_notes(n, 0) + constant_note(test, g) if n else ["no seed in common: difference of means, no interval"]
    return {
        **matched.keys[g],
        "metric": metric,
        "n": n,
        "left": number(mean_left),
        "right": number(mean_right),
        "difference": number(test.estimate[g]) if n else number(mean_right - mean_left),
        "low": number(test.low[g]),
        "high": number(test.high[g]),
        "note": join(notes),
    }


def _config_differences(left: ComparedConfig, right: ComparedConfig) -> dict[str, tuple[Any, Any]]:
    sides = [_flat(config) for config in (left, right)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    both = {key: (sides[0].get(key), sides[1].get(key)) for key in keys}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def _flat(config: ComparedConfig) -> dict[str, Any]:
    """Dotted keys with their values; a varied key has the list of them."""
    flat: dict[str, Any] = {}
    for key, value in config.resolved().items():
        if isinstance(value, dict) and key != "vary":
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        elif key not in NAMING:
            flat[key] = value
    flat["seeds"] = list(config.seed_list)
    return flat | {key: list(values) for key, values in config.vary.items()}
