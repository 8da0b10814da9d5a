"""Short names for what a study varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.records import Row
from alignfirst.report.sentences.words import value_text


@dataclass(frozen=True)
class Varied:
    """A varied key. Lists of which only one entry varies are known by that entry, `p_star.weights[7]`."""

    key: str
    label: str
    entry: int | None = None

    def text(self, value: Any) -> str:
        return value_text(value if self.entry is None else value[self.entry])


def named(keys: Sequence[str], rows: Sequence[Row]) -> list[Varied]:
    """The varied keys of a study with the names that a report gives them."""
    return [_named(key, [row[key] for row in rows]) for key in keys]


def _named(key: str, values: Sequence[Any]) -> Varied:
    lists = [v for v in values if isinstance(v, list)]
    if not lists or len(lists) != len(values) or len({len(v) for v in lists}) != 1:
        return Varied(key, key)
    differing = [i for i in range(len(lists[0])) if any(v[i] != lists[0][i] for v in lists)]
    if len(differing) != 1:
        return Varied(key, key)
    return Varied(key, f"{key}[{differing[0]}]", differing[0])
