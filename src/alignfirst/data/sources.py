"""Where rows come from: JSON lines (plain or gzipped), Parquet, a `datasets` folder, a data set on the hub.

Every source is read once from its beginning, row by row, and later at some of its rows again; none is kept in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from alignfirst.data.pairs import Unusable, decoded
from alignfirst.data.row_files import opened, placed_lines
from alignfirst.errors import InputError
from alignfirst.files import known_digest, reading

CHUNK = 256  # rows of a table in memory at a time
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
CURE = "Name a file of JSON lines (.jsonl, .gz) or .parquet, a folder that save_to_disk made, or a hub id."


class Placed(NamedTuple):
    """One row: its line (counted from 1), where it is, and the cells or, in `wrong`, why there are none."""

    line: int
    position: int
    cells: Mapping[str, Any] | None
    wrong: str | None = None


class Source(Protocol):
    """Rows in a fixed order. `identity` changes with their content."""

    identity: str

    def rows(self) -> Iterator[Placed]: ...

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        """Rows at ascending positions that `rows` told."""
        ...


def source_of(name: str, split: str) -> Source:
    """The source that a study names. Raises InputError where there is none, or one of another kind."""
    path = Path(name).expanduser()
    if path.is_file():
        return Table(path) if path.suffix == ".parquet" else Lines(path)
    if path.is_dir() or (HUB_ID.fullmatch(name) and not path.exists()):
        return DataSet(name, split)
    raise InputError("data must be there", name, CURE)


class Lines:
    """JSON lines. A position is the byte where a line begins, in what a gzipped file unpacks to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = file_identity(path)

    def rows(self) -> Iterator[Placed]:
        for line, (position, raw) in enumerate(placed_lines(self.path), 1):
            if raw is None or raw.strip():
                try:
                    yield Placed(line, position, decoded(raw))
                except Unusable as e:
                    yield Placed(line, position, None, str(e))

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        with reading(self.path), opened(self.path) as f:
            for position in positions:
                f.seek(position)
                yield decoded(f.readline().removeprefix(b"\xef\xbb\xbf"))


class Table:
    """Parquet. A position is a row's number, from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = file_identity(path)
        try:
            self.file: Any = import_module("pyarrow.parquet").ParquetFile(path)
        except ImportError as e:
            cure = "pip install pyarrow, or write the rows as JSON lines."
            raise InputError("Parquet needs pyarrow, which is not installed", str(path), cure) from e
        except (OSError, ValueError) as e:  # pyarrow's errors are of these kinds
            raise InputError("the file must be Parquet", f"{path}: {e}", "Write it again, or use JSON lines.") from e

    def rows(self) -> Iterator[Placed]:
        number = 0
        for batch in self.file.iter_batches(batch_size=CHUNK):
            for cells in _cells(batch):
                wrong = None if cells is not None else "not UTF-8"
                yield Placed(number + 1, number, cells, wrong)
                number += 1

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        wanted = iter(positions)
        position, begin = next(wanted, None), 0
        for batch in self.file.iter_batches(batch_size=CHUNK):
            while position is not None and position < begin + batch.num_rows:
                cells = next(_cells(batch.slice(position - begin, 1)))
                assert cells is not None  # it was read before
                yield cells
                position = next(wanted, None)
            begin += batch.num_rows
            if position is None:
                return


def _cells(batch: Any) -> Iterator[Mapping[str, Any] | None]:
    """Rows of a record batch; None for one with text that is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


class DataSet:
    """A `datasets` folder or a data set of the hub, memory-mapped. A position is a row's number, from 0."""

    def __init__(self, name: str, split: str) -> None:
        from alignfirst.data.datasets_library import open_dataset

        self.data, self.identity = open_dataset(name, split)

    def rows(self) -> Iterator[Placed]:
        for number, cells in enumerate(self.data):
            yield Placed(number + 1, number, cells)

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        return (self.data[position] for position in positions)


def file_identity(path: Path) -> str:
    """`sha256:` and the digest of a file; hashed once as long as it does not change."""
    return f"sha256:{known_digest(path)}"
