"""Rows of a run as arrays: groups x seeds x columns, read once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from alignfirst.errors import InputError
from alignfirst.records import COLUMNS, Row
from alignfirst.stats.intervals import Bools, Floats, as_samples, moments

METRICS = tuple(c.name for c in COLUMNS if c.label)
KEYS = ("recipe", "algorithm", "beta", "stage", "stage_index", "final")
Identity = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """Rows grouped by some key columns. Groups stand in the order in which the rows name them, seeds ascend."""

    keys: list[Row]  # G dicts: the key columns and their values
    seeds: list[int]  # S
    columns: tuple[str, ...]  # M
    values: Floats  # [G, S, M], NaN where there is no such row, its status is not ok, or the value is null
    seen: Bools  # [G, S] there is such a row
    ok: Bools  # [G, S] and its status is ok

    def column(self, name: str) -> Floats:
        """[G, S]"""
        return self.values[:, :, self.columns.index(name)]


def identity(row: Mapping[str, Any], names: Iterable[str]) -> Identity:
    """The key columns of a row as something hashable: a varied value may be a list or a mapping."""
    return tuple(
        ("json", json.dumps(v, sort_keys=True)) if isinstance(v, list | dict) else v for v in (row[n] for n in names)
    )


def tabulate(rows: Sequence[Row], names: Sequence[str], columns: Sequence[str]) -> Table:
    """Group rows by `names`. Raises InputError where two rows of a group have one seed: each would count once only."""
    groups: dict[Identity, int] = {}
    keys: list[Row] = []
    group = np.empty(len(rows), np.intp)
    for i, row in enumerate(rows):
        g = groups.setdefault(identity(row, names), len(keys))
        if g == len(keys):
            keys.append({n: row[n] for n in names})
        group[i] = g
    seeds = sorted({row["seed"] for row in rows})
    place = {seed: s for s, seed in enumerate(seeds)}
    seed = np.array([place[row["seed"]] for row in rows], np.intp)

    shape = (len(keys), len(seeds))
    seen, ok = np.zeros(shape, bool), np.zeros(shape, bool)
    seen[group, seed] = True
    if int(seen.sum()) != len(rows):
        _refuse_twice(rows, names)
    good = np.array([row["status"] == "ok" for row in rows], bool)
    ok[group, seed] = good
    values = np.full((*shape, len(columns)), np.nan)
    cells = np.array([[row.get(c) for c in columns] for row in rows], np.float64).reshape(len(rows), len(columns))
    values[group[good], seed[good]] = as_samples(cells[good])
    return Table(keys, seeds, tuple(columns), values, seen, ok)


def _refuse_twice(rows: Sequence[Row], names: Sequence[str]) -> None:
    known: set[Identity] = set()
    for row in rows:
        who = (*identity(row, names), row["seed"])
        if who in known:
            raise InputError(
                "every cell and stage has one row a seed",
                f"two rows for {dict(zip((*names, 'seed'), who, strict=True))}",
                "Name every key that the study varies, or drop the rows that stand twice.",
            )
        known.add(who)


def final_rows(rows: Iterable[Row], recipe: str) -> list[Row]:
    return [row for row in rows if row["final"] and row["recipe"] == recipe]


def numbers(x: Floats) -> list[float | None]:
    """JSON-safe: NaN is null."""
    return [None if v != v else v for v in x.tolist()]


def number(x: float | np.floating[Any] | Floats) -> float | None:
    """JSON-safe: NaN and infinities are null."""
    return float(x) if np.isfinite(x) else None


def mean_of(x: ArrayLike | Sequence[float | None]) -> float | None:
    """Mean of the values that are there, null where none is."""
    return number(moments(as_samples(np.array(x, np.float64)))[1])
