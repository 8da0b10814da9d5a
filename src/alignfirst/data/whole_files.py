"""Rows of files that are no lines: a JSON array, CSV. They are read in little memory, one row after the other."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignfirst.data.row_files import BYTE_ORDER_MARK, MAX_FILE, MAX_LINE, opened
from alignfirst.errors import InputError
from alignfirst.files import reading

Found = tuple[int, Mapping[str, Any] | None, str | None]  # line, cells or, in the third, why there are none
BLOCK = 1 << 20  # characters that are read at a time
ARRAY = re.compile(rb"\s*\[\s*\{")  # JSON lines may be arrays, too: of numbers, none of them a row
SPACE = re.compile(r"[\s,]*")


def is_array(path: Path) -> bool:
    """Whether a file holds one JSON array of objects, by its first bytes."""
    with reading(path), opened(path) as f:
        try:
            return ARRAY.match(f.read(1 << 16).removeprefix(BYTE_ORDER_MARK)) is not None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False  # the reader of lines says what is wrong


def array_rows(path: Path) -> Iterator[Found]:
    """The objects of one JSON array, each with the line where it begins.

    Raises InputError where it is cut short or broken between two of them: what follows cannot be told apart.
    """
    with reading(path), _text_of(path) as text:
        try:
            yield from _elements(_Window(text), path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise InputError("a gzipped file must be whole", f"{path}: {e}", "Copy or compress it again.") from e


def _text_of(path: Path) -> io.TextIOWrapper:
    """Bytes that are not UTF-8 become halves of surrogate pairs, which the rows that have them are told by."""
    return io.TextIOWrapper(opened(path), "utf-8-sig", errors="surrogateescape", newline="")


class _Window:
    """A window on the text of a file that moves on, and the line where it begins."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file = file
        self.seen, self.line, self.text = 0, 1, ""

    def more(self) -> bool:
        """Read on; False at the end. What was not yet passed over doubles, so that long rows take few rounds."""
        block = self.file.read(max(BLOCK, len(self.text)))
        self.seen += len(block)
        if self.seen > MAX_FILE:
            raise InputError(f"a file must be at most {MAX_FILE >> 30} GB, unpacked", "more", "Split it.")
        self.text += block
        return bool(block)

    def drop(self, at: int) -> None:
        self.line += self.text.count("\n", 0, at)
        self.text = self.text[at:]


def _elements(window: _Window, path: Path) -> Iterator[Found]:
    decoder, at = json.JSONDecoder(), 0
    window.more()
    at = window.text.index("[") + 1
    while True:
        space = SPACE.match(window.text, at)
        assert space is not None
        begin = space.end()
        if begin == len(window.text) and window.more():
            continue
        if window.text[begin : begin + 1] == "]":
            window.drop(begin + 1)
            window.more()
            if window.text.strip():
                given = f"{path}: more text in line {window.line}"
                raise InputError("a file must be one JSON array", given, "Or one JSON object a line.")
            return
        try:
            value, end = decoder.raw_decode(window.text, begin)
        except (ValueError, RecursionError):
            window.drop(begin)
            at = 0
            if len(window.text) <= MAX_LINE and window.more():
                continue
            given = f"{path}: broken near line {window.line}"
            raise InputError("a JSON array must be whole", given, "Write it again, or as JSON lines.") from None
        yield _element(window.line + window.text.count("\n", 0, begin), value, window.text[begin:end])
        at = end
        if at > BLOCK // 2:
            window.drop(at)
            at = 0


def _element(line: int, value: Any, written: str) -> Found:
    if not isinstance(value, dict):
        return line, None, "not a JSON object"
    return (line, value, None) if _utf8(written) else (line, None, "not UTF-8")


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def csv_rows(path: Path) -> Iterator[Found]:
    """Rows of a CSV file by the names in its first line; in a .tsv they are divided by tabs.

    Raises InputError where the first line names a column twice, or a gzipped file is damaged.
    """
    with reading(path), _text_of(path) as text:
        try:
            yield from _csv(text, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise InputError("a gzipped file must be whole", f"{path}: {e}", "Copy or compress it again.") from e


def _csv(text: io.TextIOWrapper, path: Path) -> Iterator[Found]:
    head = text.readline()
    divided = "\t" if ".tsv" in path.suffixes else ";" if ";" in head and "," not in head else ","
    csv.field_size_limit(MAX_LINE)
    names = next(csv.reader([head], delimiter=divided), [])
    if not names:
        return
    if len(set(names)) < len(names):
        rule = "the first line of a CSV file must name each column once"
        raise InputError(rule, f"{path}: {head.strip()}", "Rename those that are there twice.")
    rows, line = csv.reader(text, delimiter=divided, strict=True), 2
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as e:
            yield line, None, f"not CSV ({e})"
            line = rows.line_num + 2
            continue
        if cells is None:
            return
        if cells:
            yield _csv_row(line, names, cells)
        line = rows.line_num + 2


def _csv_row(line: int, names: list[str], cells: list[str]) -> Found:
    if len(cells) != len(names):
        return line, None, f"{len(cells)} cells for {len(names)} columns"
    if not all(map(_utf8, cells)):
        return line, None, "not UTF-8"
    return line, dict(zip(names, cells, strict=True)), None
