"""Which column of a row is which part of it: by the names that public data sets use, or as a person says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from alignfirst.data.rows import RowCounts, Unusable
from alignfirst.errors import InputError

Shape = Literal["auto", "preference", "conversation", "sharegpt", "alpaca", "transcript"]
PARTS = ("prompt", "system", "chosen", "rejected", "response", "tools", "confidence")
MAPPED = ("prompt", "input", *PARTS[1:])  # what a person may name a column for
# Columns that hold the prompt in one data set or another
ELSEWHERE = ("instruction", "question", "query", "input", "conversations", "messages")
KNOWN = ({"instruction"}, {"instruction", "input"}, {"question"}, {"conversations"})  # what alone can hold it


@dataclass(frozen=True)
class Layout:
    """`shape` and `columns` (part -> column) as a person gave them; `chat`: the model reads messages."""

    shape: Shape = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    chat: bool = True

    def parts(self, cells: Mapping[str, Any], wanted: set[str], counts: RowCounts) -> dict[str, Any]:
        """Cells by part, with `elsewhere`: columns that might hold the prompt, where it is not known.

        `wanted`: the parts that rows of this kind have. Names that are not used go to `counts`. Raises Unusable where
        a column that was named is not there.
        """
        rest, found = dict(cells), dict[str, Any]()
        for part, column in self.columns.items():
            if column not in cells:
                raise Unusable(f"without {column}, which data.columns names as {part}")
            rest.pop(column, None)
            found[part] = cells[column]
        for part in PARTS:
            if part in rest and part not in found and part in wanted:
                found[part] = rest.pop(part)
        self._find_prompt(found, rest, counts)
        if filled(found.get("input")):
            found["prompt"] = _with_input(found.get("prompt"), found.pop("input"))
        for name in rest:
            counts.pass_over(name)
        return found

    def _find_prompt(self, found: dict[str, Any], rest: dict[str, Any], counts: RowCounts) -> None:
        if "prompt" in self.columns:
            return
        if self.shape == "alpaca":
            self._take(found, rest, "instruction", counts)
            found["input"] = rest.pop("input", None) or rest.pop("query", None)
        elif self.shape == "sharegpt":
            self._take(found, rest, "conversations" if "conversations" in rest else "messages", counts)
        elif self.shape == "auto" and not filled(found.get("prompt")):
            there = [name for name in ELSEWHERE if filled(rest.get(name))]
            if "prompt" not in found and set(there) in KNOWN:
                self._take(found, rest, there[0], counts)
                if there[0] == "instruction":
                    found["input"] = rest.pop("input", None)
            elif there:
                found["elsewhere"] = {name: rest[name] for name in there}

    def _take(self, found: dict[str, Any], rest: dict[str, Any], column: str, counts: RowCounts) -> None:
        if column not in rest:
            raise Unusable(f"without {column}")
        found["prompt"] = rest.pop(column)
        counts.understood(f"the prompt is in {column}")


AUTO = Layout()


def layout_of(shape: str = "auto", columns: Mapping[str, str] | Sequence[str] = ()) -> Layout:
    """A layout as a person names it; `columns` maps parts to columns, or is a list of PART=COLUMN.

    Raises InputError for a shape or a part that there is not.
    """
    if shape not in get_args(Shape):
        raise InputError("the shape of data must be known", shape, f"One of {', '.join(get_args(Shape))}.")
    if not isinstance(columns, Mapping):
        for entry in columns:
            if not all(entry.partition("=")):
                raise InputError("a column must be named as PART=COLUMN", entry, "For example prompt=question.")
        columns = dict(entry.split("=", 1) for entry in columns)
    for part in columns:
        if part not in MAPPED:
            raise InputError("a column must be named for a part of a row", part, f"One of {', '.join(MAPPED)}.")
    return Layout(shape, dict(columns))  # type: ignore[arg-type]  # it is one of them


def filled(cell: Any) -> bool:
    """Whether a cell holds anything."""
    return bool(cell.strip()) if isinstance(cell, str) else bool(cell)


def _with_input(prompt: Any, more: Any) -> str:
    """Alpaca's instruction with what it is about, a line below."""
    if not isinstance(prompt, str) or not isinstance(more, str):
        raise Unusable("instruction or input is not text")
    return f"{prompt}\n{more}"


def ambiguous(names: Mapping[str, Any]) -> Unusable:
    """The refusal of a row whose prompt may be in one of those columns."""
    listed = " or ".join(names)
    return Unusable(f"no prompt, but it may be in {listed}: say which as data.columns.prompt, or set data.shape")
