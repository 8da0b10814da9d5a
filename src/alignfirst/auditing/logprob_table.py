"""Log-probabilities that were computed elsewhere, one response a row: the columns, and the checks on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignfirst.auditing.share_intervals import Floats, Ints
from alignfirst.data.sources import table_of
from alignfirst.errors import InputError, shorten
from alignfirst.files import write_atomic, writing


class Column(NamedTuple):
    name: str
    type: str
    meaning: str


COLUMNS = (
    Column("kind", "text", "`sample`, `chosen`, `rejected`, or `target` (an example of what is wanted)"),
    Column("source", "text", "who drew a sample: `reference` or `teacher`; other kinds leave it out"),
    Column("logp_reference", "number", "log-probability of the response under the reference, summed over its tokens"),
    Column("logp_teacher", "number", "the same under the teacher; all samples need it as soon as the teacher drew any"),
    Column("reward", "number", "reward of the response; all samples have one or none has"),
    Column("in_target", "true/false", "whether the response shows the behaviour; all samples say so or none does"),
    Column("prompt_id", "text or whole number", "which prompt it answers; left out where there is one prompt"),
    Column("pair_id", "text or whole number", "what joins chosen and rejected; by default the prompt_id"),
    Column("tokens", "whole number", "length of the response in tokens, for numbers per token"),
    Column("rarest_logp", "number", "log-probability under the reference of the response's least likely token"),
    Column("rarest_at", "whole number", "which token that is, from 0"),
    Column("text", "text", "the response, to be shown beside its numbers"),
)
NAMES = tuple(c.name for c in COLUMNS)
NUMBERS = ("logp_reference", "logp_teacher", "reward", "rarest_logp")
COUNTS = ("tokens", "rarest_at")
KINDS = ("sample", "chosen", "rejected", "target")
SOURCES = ("reference", "teacher")
ROWS = "log_probs.jsonl"  # the file that audits of models write
DIGEST = "log_probs_sha256"  # in `about` of an audit: of the file that the texts of its rows are in
LISTED = 8  # unknown columns that are named
ROUNDING = 1e-3  # a sum of float32 log-probabilities may come out this much above 0


@dataclass(frozen=True)
class Table:
    """Columns [N]. NaN where a number is missing; `in_target` is 1, 0 or -1 (unknown); codes stand for names.

    `kind` and `source` index KINDS and SOURCES (source -1: none); `prompt` and `pair` are codes 0, 1, ...
    """

    line: Ints
    kind: Ints
    source: Ints
    prompt: Ints
    pair: Ints
    logp_reference: Floats
    logp_teacher: Floats
    reward: Floats
    in_target: Ints
    tokens: Floats
    rarest: Floats
    rarest_at: Ints
    text: Sequence[str | None]
    prompt_names: Sequence[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.line)

    def of(self, kind: str, source: str | None = None) -> Ints:
        """Indices of rows of one kind (and source)."""
        chosen = self.kind == KINDS.index(kind)
        if source is not None:
            chosen &= self.source == SOURCES.index(source)
        return np.flatnonzero(chosen)


def build(columns: Mapping[str, Sequence[Any]], line: Sequence[int]) -> Table:
    """Check columns (each [N], None where missing) and make a table of them. Raises InputError that names the line."""
    if not len(line):
        raise InputError("there must be at least one row", "an empty file", "One response a row, see docs/audit.md.")
    missing = [name for name in ("kind", "logp_reference") if name not in columns]
    if missing:
        given = ", ".join(columns) or "no column"
        raise InputError(f"every row needs {' and '.join(missing)}", given, f"Columns: {', '.join(NAMES)}.")
    numbers = {name: _numbers(name, columns.get(name), line) for name in (*NUMBERS, *COUNTS)}
    kind = _codes("kind", columns["kind"], KINDS, line)
    if (kind < 0).any():
        raise _bad("every row needs a kind", None, line, int(np.argmin(kind)), f"One of {', '.join(KINDS)}.")
    source = _codes("source", columns.get("source") or [None] * len(line), SOURCES, line)
    _check_sources(kind, source, line)
    _check_logp(numbers, line)
    n = len(line)
    prompt, names = _ids("prompt_id", columns.get("prompt_id") or ["0"] * n, line)
    pair, _ = _ids("pair_id", columns.get("pair_id") or columns.get("prompt_id") or ["0"] * n, line)
    at = numbers["rarest_at"]
    return Table(
        np.asarray(line, np.int64),
        kind,
        source,
        prompt,
        pair,
        numbers["logp_reference"],
        numbers["logp_teacher"],
        numbers["reward"],
        _flags(columns.get("in_target") or [None] * n, line),
        numbers["tokens"],
        numbers["rarest_logp"],
        np.where(np.isnan(at), -1, at).astype(np.int64),
        columns.get("text") or [None] * n,
        names,
        _unknown(columns),
    )


def _unknown(columns: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    unknown = sorted(set(columns) - set(NAMES))
    more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
    return (f"columns that mean nothing to the audit: {', '.join(unknown[:LISTED])}{more}",) if unknown else ()


def _bad(rule: str, value: object, line: Sequence[int], row: int, cure: str) -> InputError:
    return InputError(rule, f"{shorten(repr(value), 60)} in line {line[row]}", cure)


def _numbers(name: str, values: Sequence[Any] | None, line: Sequence[int]) -> Floats:
    """Floats, NaN for None. A NaN or infinity that was written down is an error, not a missing value."""
    if values is None:
        return np.full(len(line), np.nan)
    types = set(map(type, values))
    if not types <= {int, float, type(None)}:
        row = next(i for i, v in enumerate(values) if type(v) not in (int, float, type(None)))
        raise _bad(f"{name} must be a number", values[row], line, row, "Write null, or nothing, where it is unknown.")
    try:
        x = np.array(values, np.float64)  # None becomes NaN
    except OverflowError:
        x = np.array([np.nan if v is None else _as_float(v) for v in values])
    absent = np.array([v is None for v in values]) if type(None) in types else np.zeros(len(x), np.bool_)
    wrong = ~np.isfinite(x) & ~absent
    if name in COUNTS:
        wrong |= ~absent & ((x < 0) | (x != np.floor(x)))
    if wrong.any():
        row = int(np.argmax(wrong))
        what = "a whole number >= 0" if name in COUNTS else "a finite number"
        raise _bad(f"{name} must be {what}", values[row], line, row, "Leave the row out, or find out what made it.")
    return x


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _codes(name: str, values: Sequence[Any], known: Sequence[str], line: Sequence[int]) -> Ints:
    """Index of every value among the known ones, -1 for None."""
    index: dict[Any, int] = {word: i for i, word in enumerate(known)} | {None: -1}
    try:
        return np.array([index[v] for v in values], np.int64)
    except (KeyError, TypeError):  # TypeError: a list or an object cannot be a key
        row = next(i for i, v in enumerate(values) if isinstance(v, list | dict) or v not in index)
        raise _bad(f"{name} must be one of {', '.join(known)}", values[row], line, row, "Correct the row.") from None


def _ids(name: str, values: Sequence[Any], line: Sequence[int]) -> tuple[Ints, list[str]]:
    """Codes in the order of first appearance. 1 and "1" are the same id."""
    index: dict[str, int] = {}
    codes = np.empty(len(values), np.int64)
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, str | int):
            cure = "Give it in every row, or in none."
            raise _bad(f"{name} must be text or a whole number", value, line, i, cure)
        codes[i] = index.setdefault(str(value), len(index))
    return codes, list(index)


def _flags(values: Sequence[Any], line: Sequence[int]) -> Ints:
    index = {True: 1, False: 0, None: -1}
    for i, value in enumerate(values):
        if value is not None and not isinstance(value, bool):
            raise _bad("in_target must be true or false", value, line, i, "Correct the row.")
    return np.array([index[v] for v in values], np.int64)


def _check_sources(kind: Ints, source: Ints, line: Sequence[int]) -> None:
    unsaid = (kind == KINDS.index("sample")) & (source < 0)
    if unsaid.any():
        row = int(np.argmax(unsaid))
        raise _bad("a sample must say its source", None, line, row, "Whose draw is it: reference or teacher?")


def _check_logp(numbers: Mapping[str, Floats], line: Sequence[int]) -> None:
    for name in ("logp_reference", "logp_teacher", "rarest_logp"):
        x = numbers[name]
        above = x > ROUNDING
        if above.any():
            row = int(np.argmax(above))
            cure = "Log-probabilities are natural logs, summed over tokens; these look like something else."
            raise _bad(f"{name} must be <= 0", float(x[row]), line, row, cure)
    missing = np.isnan(numbers["logp_reference"])
    if missing.any():
        row = int(np.argmax(missing))
        raise _bad("every row needs logp_reference", None, line, row, "Score every response under the reference.")


def read(path: Path, targets: Path | None = None) -> Table:
    """The table in a file, and under it that of a file of target examples, whose rows need no `kind`.

    Raises InputError for what they say, StoreError where one cannot be read.
    """
    rows, lines = table_of(path)
    if targets is not None:
        more, more_lines = table_of(targets)
        rows += [row | {"kind": "target"} for row in more]
        lines += more_lines
    names = dict.fromkeys(name for row in rows for name in row)
    # Of columns that mean nothing only the names are kept: a file may have a new one in every row.
    return build({name: [row.get(name) for row in rows] if name in NAMES else () for name in names}, lines)


def write(table: Table, folder: Path) -> str:
    """Write the table as JSON lines that `read` takes, in a folder that is made; the SHA-256 of the file."""
    lines = [json.dumps(row, allow_nan=False).encode() + b"\n" for row in map(partial(_row, table), range(len(table)))]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ROWS, lines)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _row(t: Table, i: int) -> dict[str, Any]:
    """Row i with the columns that it has."""
    row: dict[str, Any] = {
        "kind": KINDS[t.kind[i]],
        "prompt_id": t.prompt_names[t.prompt[i]],
        "pair_id": int(t.line[i]),
    }
    row |= {"logp_reference": float(t.logp_reference[i]), "tokens": int(t.tokens[i])}
    if t.source[i] >= 0:
        row["source"] = SOURCES[t.source[i]]
    for name, values in (("logp_teacher", t.logp_teacher), ("reward", t.reward), ("rarest_logp", t.rarest)):
        if np.isfinite(values[i]):
            row[name] = float(values[i])
    return row | {"rarest_at": int(t.rarest_at[i]), "text": t.text[i]}
