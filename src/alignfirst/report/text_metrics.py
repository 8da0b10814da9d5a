"""Measures that only text has: variety, coverage, mass by behaviour, figures by prompt. Read from the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.records import Row
from alignfirst.report.compact import Codes
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import rounded
from alignfirst.stats.columns import mean_of

# Columns that make a run one of text; `coverage` alone does not, for mixtures have it too.
TEXT_COLUMNS = ("entropy", "distinct", "repetition", "posterior", "by_prompt")
MOST_PROMPTS = 12
LABELS: Mapping[str, tuple[str, str]] = {  # label, unit
    "entropy": ("entropy of its texts", "nats"),
    "entropy_per_token": ("entropy of its texts, per token", "nats"),
    "repetition": ("repeated bigrams within a text", "share"),
}
BY_KEY: Mapping[str, tuple[str, str]] = {
    "distinct": ("distinct {}-grams", "share"),
    "coverage": ("coverage at {}", "share"),
    "posterior": ("mass of {}", "share"),
}
BY_PROMPT: Mapping[str, tuple[str, str]] = {
    "target_recall": ("target recall", "nats"),
    "target_mass": ("target mass", "share"),
    "reward": ("reward", ""),
    "overall_recall": ("overall recall", "nats"),
}


@dataclass(frozen=True)
class Measure:
    """A number of a row: its column, and where the column holds several, the way to it."""

    column: str
    path: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return " ".join(("text", self.column, *self.path))

    def of(self, row: Mapping[str, Any]) -> float | None:
        value = row.get(self.column)
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) else None

    def shown(self) -> dict[str, Any]:
        """The measure as the page knows it."""
        if not self.path:
            label, unit = LABELS[self.column]
        elif self.column == "by_prompt":
            label, unit = BY_PROMPT[self.path[1]]
        else:
            label, unit = BY_KEY[self.column]
            label = label.format(self.path[0])
        return {"id": self.id, "column": self.column, "path": list(self.path), "label": label, "unit": unit}


def measures(run: RunFiles) -> list[Measure]:
    """What the rows of this run hold of text, in the order of the tables above; empty for other worlds."""
    ok = [r for r in run.rows if r["status"] == "ok"]
    if not any(r.get(c) is not None for r in ok for c in TEXT_COLUMNS):
        return []
    found = [Measure(c) for c in LABELS if any(r.get(c) is not None for r in ok)]
    for column in BY_KEY:
        found += [Measure(column, (k,)) for k in _keys(r.get(column) for r in ok)]
    prompts = _keys(r.get("by_prompt") for r in ok)[:MOST_PROMPTS]
    found += [Measure("by_prompt", (p, m)) for m in BY_PROMPT for p in prompts]
    return [m for m in found if any(m.of(r) is not None for r in ok)]


def column_of(
    measure: Measure, rows: Sequence[Sequence[Row]], seeds: Sequence[Sequence[int]], pool: Codes
) -> dict[str, list[Any]]:
    """Means over seeds, and single seeds by their number in the pool: one entry a cell, in the order of its seeds."""
    means: list[Any] = []
    values: list[Any] = []
    for of_cell, order in zip(rows, seeds, strict=True):
        by_seed = {r["seed"]: measure.of(r) for r in of_cell if r["status"] == "ok"}
        means.append(rounded(mean_of(list(by_seed.values()))))
        values.append(pool.add([rounded(by_seed.get(s)) for s in order] if means[-1] is not None else None))
    return {"mean": means, "values": values}


def parts(run: RunFiles) -> set[str]:
    """Which of the figures of text this run has something for."""
    columns = {m.column for m in measures(run)}
    models = run.exhibits.get("models", {}).values() if run.exhibits.get("kind") == "text" else ()
    found = {"behaviours": {"posterior"}, "prompts": {"by_prompt"}}
    here = {name for name, needs in found.items() if needs <= columns}
    if columns & {"entropy", "entropy_per_token", "distinct", "repetition", "coverage"}:
        here.add("variety")
    if any((m.get("curves") or {}).get("update") for m in models):
        here.add("curves")
    return here


def _keys(values: Iterator[Any] | Sequence[Any] | Any) -> list[str]:
    """Keys of the mappings among the values, in order of first appearance."""
    return list(dict.fromkeys(k for v in values if isinstance(v, dict) for k in v))
