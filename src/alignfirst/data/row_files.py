"""Lines of a file, plain or gzipped, in little memory, and the JSON object in one of them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignfirst.data.rows import Unusable
from alignfirst.errors import InputError
from alignfirst.files import reading

MAX_LINE = 16 << 20  # bytes; a line is one row
MAX_FILE = 8 << 30  # bytes of a file, unpacked: what a small gzipped file may turn out to hold
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def opened(path: Path) -> Any:
    """A plain or gzipped file as bytes of its content. Raises StoreError where it cannot be read."""
    with reading(path):
        with open(path, "rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"  # by content: a name may lie
        return gzip.open(path) if zipped else open(path, "rb")


def placed_lines(path: Path, limit: int = MAX_LINE) -> Iterator[tuple[int, bytes | None]]:
    """Lines one at a time, each with the byte where it begins in the unzipped content.

    None stands for a line longer than `limit` bytes, whose text is passed over without being kept; a byte-order mark is
    dropped. Raises InputError for a damaged gzip or too large a file, StoreError where it cannot be read.
    """
    with reading(path), opened(path) as f:
        try:
            yield from _lines(f, limit)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise InputError("a gzipped file must be whole", f"{path}: {e}", "Copy or compress it again.") from e


def line_at(f: Any, position: int) -> bytes:
    """The line of an opened file that begins at a byte which `placed_lines` told."""
    f.seek(position)
    line: bytes = f.readline()
    return line.removeprefix(BYTE_ORDER_MARK)


def _lines(f: Any, limit: int) -> Iterator[tuple[int, bytes | None]]:
    at = 0
    while line := _readline(f, limit):
        whole: bytes | None = line if at else line.removeprefix(BYTE_ORDER_MARK)
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


def decoded(raw: bytes | None) -> Mapping[str, Any]:
    """A line as a JSON object. Raises Unusable with the reason; None is a line that was too long to keep."""
    if raw is None:
        raise Unusable("longer than a line may be")
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    except (ValueError, RecursionError):
        raise Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise Unusable("not a JSON object")
    return row
