"""Recipes by what they cost and what they reached: quality of a stage over its seeds, operations of a recipe to its
end, gains for them, and one order of the stages against the other.

For worlds whose records say how sure a measurement is in itself (`intervals`, over held-out prompts), so that one seed
tells something: an interval of one seed is the record's own; that of several reaches from the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignfirst.records import Row
from alignfirst.stats.columns import Identity, identity
from alignfirst.stats.paired import A_K, K_A


@dataclass(frozen=True)
class Measure:
    """A column of the records; `by` is the key in a column that holds several numbers."""

    column: str
    by: str | None = None

    def of(self, row: Row) -> float | None:
        """None where it was not measured, or the stage is not ok."""
        value = row.get(self.column)
        if self.by is not None:
            value = value.get(self.by) if isinstance(value, Mapping) else None
        return None if value is None or row["status"] != "ok" else float(value)


@dataclass(frozen=True)
class Estimate:
    """Mean over `n` seeds. `low` and `high` are None where nothing says how sure it is."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class RecipeCell:
    """A recipe with an algorithm, beta and varied values: rows of its stages by index, one a seed.

    `order` is the rest of its identity: what is the same in a cell of another order of the stages.
    """

    recipe: str
    order: Identity
    stages: dict[int, list[Row]] = field(default_factory=dict)

    @property
    def first(self) -> list[Row]:
        return self.stages[0]

    @property
    def last(self) -> list[Row]:
        return next(rows for rows in self.stages.values() if rows[0]["final"])


@dataclass(frozen=True)
class OrderDifference:
    """One measure at the end of align-distil less that of distil-align, `gap`.

    With one seed, `apart` says whether their intervals leave room between them, None where either has none. With
    several, `won` counts the seeds in which align-distil has more, of `n` that have both.
    """

    measure: Measure
    gap: float
    apart: bool | None
    won: int | None
    n: int


@dataclass(frozen=True)
class OrdersCompared:
    """`cell` of align-distil and its counterpart: `ratio` of their operations, and what differs."""

    cell: RecipeCell
    ratio: float
    differences: tuple[OrderDifference, ...]


def recipe_cells(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[RecipeCell]:
    """In the order of the rows."""
    found: dict[Identity, RecipeCell] = {}
    for row in rows:
        order = identity(row, ("algorithm", "beta", *varied))
        cell = found.setdefault((row["recipe"], *order), RecipeCell(row["recipe"], order))
        cell.stages.setdefault(row["stage_index"], []).append(row)
    return list(found.values())


def estimate(rows: Sequence[Row], measure: Measure) -> Estimate | None:
    """Of one stage, over its seeds; None where no seed has it."""
    known = [value for row in rows if (value := measure.of(row)) is not None]
    if not known:
        return None
    low, high = _spread(rows, known, measure)
    return Estimate(sum(known) / len(known), low, high, len(known))


def _spread(rows: Sequence[Row], known: Sequence[float], measure: Measure) -> tuple[float | None, float | None]:
    if len(rows) > 1:
        return (min(known), max(known)) if len(known) > 1 else (None, None)
    low, high = ((rows[0].get("intervals") or {}).get(measure.column) or (None, None))[:2]
    return (None, None) if low is None or high is None else (low, high)


def operations(cell: RecipeCell) -> float | None:
    """Of all stages, a mean over the seeds that have all of them."""
    by_seed: dict[int, list[float | None]] = {}
    for rows in cell.stages.values():
        for row in rows:
            by_seed.setdefault(row["seed"], []).append(row["flops"] if row["status"] == "ok" else None)
    whole = [sum(x for x in each if x is not None) for each in by_seed.values() if None not in each]
    return sum(whole) / len(whole) if whole else None


def gain(cell: RecipeCell, measure: Measure) -> float | None:
    """What the recipe's end has more than its beginning, the sft model."""
    begin, end = estimate(cell.first, measure), estimate(cell.last, measure)
    return None if begin is None or end is None else end.value - begin.value


def orders(cells: Sequence[RecipeCell], measures: Sequence[Measure]) -> list[OrdersCompared]:
    """For each setting that has both orders: what aligning the large model cost more, and what it brought."""
    second = {cell.order: cell for cell in cells if cell.recipe == K_A}
    found = []
    for cell in cells:
        if cell.recipe != A_K or cell.order not in second:
            continue
        other = second[cell.order]
        costs = operations(cell), operations(other)
        if costs[0] and costs[1]:
            differences = [_difference(cell.last, other.last, m) for m in measures]
            found.append(OrdersCompared(cell, costs[0] / costs[1], tuple(d for d in differences if d is not None)))
    return found


def _difference(a: Sequence[Row], b: Sequence[Row], measure: Measure) -> OrderDifference | None:
    x, y = estimate(a, measure), estimate(b, measure)
    if x is None or y is None:
        return None
    if len(a) > 1:
        values: list[dict[Any, float | None]] = [{row["seed"]: measure.of(row) for row in rows} for rows in (a, b)]
        gaps = [p - q for seed, p in values[0].items() if p is not None and (q := values[1].get(seed)) is not None]
        return OrderDifference(measure, x.value - y.value, None, sum(gap > 0 for gap in gaps), len(gaps))
    apart = None
    if x.low is not None and x.high is not None and y.low is not None and y.high is not None:
        apart = x.low > y.high or x.high < y.low
    return OrderDifference(measure, x.value - y.value, apart, None, 1)
