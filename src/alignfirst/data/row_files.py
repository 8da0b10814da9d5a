"""Reading a file of precomputed log-probabilities: JSON lines, plain or gzipped; Parquet where pyarrow is present."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from sys import getsizeof, intern
from typing import Any

from alignfirst.errors import InputError
from alignfirst.files import reading

MAX_LINE = 16 << 20  # bytes; a line is one response
MAX_TABLE = 640 << 20  # bytes of memory that the rows of one table may take: a million of them without long texts
NESTED = 6  # bytes of memory for one of JSON inside a list or an object, about
MAX_FILE = 8 << 30  # bytes of a file, unpacked: what a small gzipped file may turn out to hold


def rows_of(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows as they stand in a file, unchecked, and their lines."""
    if not path.is_file():
        raise InputError("log-probabilities must be in a file", str(path), "JSON lines or Parquet, see docs/audit.md.")
    return _parquet(path) if path.suffix == ".parquet" else _objects(path)


def _objects(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    rows: list[dict[str, Any]] = []
    lines, size = [], 0
    for number, line in enumerate(raw_lines(path), 1):
        if line is None:
            raise InputError(f"a line must be shorter than {MAX_LINE} bytes", f"line {number}", "One response a row.")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            hint = "Write one JSON object a line, UTF-8."
            raise InputError("every line must be a JSON object", f"line {number}: {e}", hint) from e
        if not isinstance(row, dict):
            cure = "Write one JSON object a line; for an array, `jq -c '.[]'` makes one of it."
            raise InputError("every line must be a JSON object", f"line {number}", cure)
        row = {intern(name): value for name, value in row.items()}
        size += _memory(row, line)
        if size > MAX_TABLE:
            rule = f"log-probabilities must fit into memory: rows that take at most {MAX_TABLE >> 20} MB"
            raise InputError(rule, f"more from line {number} of {path} on", "Audit a random part of the rows.")
        rows.append(row)
        lines.append(number)
    return rows, lines


def _memory(row: Mapping[str, Any], line: bytes) -> int:
    """Bytes that a row takes; its names are shared by all rows."""
    nested = any(isinstance(value, list | dict) for value in row.values())
    return getsizeof(row) + sum(map(getsizeof, row.values())) + nested * NESTED * len(line)


def raw_lines(path: Path, limit: int = MAX_LINE) -> Iterator[bytes | None]:
    """Lines of a plain or gzipped file, one at a time; None for one that is longer than the limit, whose text is
    passed over without being kept. A byte-order mark is dropped. Raises StoreError where the file cannot be read."""
    return (line for _, line in placed_lines(path, limit))


def opened(path: Path) -> Any:
    """A plain or gzipped file as bytes of its content."""
    with reading(path):
        with open(path, "rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"  # by content: a name may lie
        return gzip.open(path) if zipped else open(path, "rb")


def placed_lines(path: Path, limit: int = MAX_LINE) -> Iterator[tuple[int, bytes | None]]:
    """The same, each with where it begins in the (unzipped) content, in bytes."""
    with reading(path), opened(path) as f:
        try:
            yield from _lines(f, limit)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise InputError("a gzipped file must be whole", f"{path}: {e}", "Copy or compress it again.") from e


def _lines(f: Any, limit: int) -> Iterator[tuple[int, bytes | None]]:
    at = 0
    while line := _readline(f, limit):
        whole: bytes | None = line if at else line.removeprefix(b"\xef\xbb\xbf")
        begin, at = at, at + len(line)
        while len(line) > limit and not line.endswith(b"\n"):
            whole = None
            line = _readline(f, limit)
            at += len(line)
            if not line or line.endswith(b"\n"):
                break
        yield begin, whole


def _readline(f: Any, limit: int) -> bytes:
    line: bytes = f.readline(limit + 1)
    if f.tell() > MAX_FILE:
        raise InputError(f"a file must be at most {MAX_FILE >> 30} GB, unpacked", "more", "Split it.")
    return line


def _parquet(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as e:
        cure = "pip install pyarrow, or write the rows as JSON lines."
        raise InputError("Parquet needs pyarrow, which is not installed", str(path), cure) from e
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as e:  # pyarrow's errors are of these kinds
        raise InputError("the file must be Parquet", f"{path}: {e}", "Write it again, or use JSON lines.") from e
    return rows, list(range(1, len(rows) + 1))
