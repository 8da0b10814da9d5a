"""Where rows come from: JSON lines, a JSON array, CSV (all plain or gzipped), Parquet, a `datasets` folder, the hub.

Every source is read once from its beginning, row by row, and later at some of its rows again; none is kept in memory.
Only `table_of` keeps rows, up to a cap.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from sys import getsizeof, intern
from typing import Any, NamedTuple, Protocol

from alignfirst.data.row_files import MAX_LINE, decoded, line_at, opened, placed_lines
from alignfirst.data.rows import Unusable
from alignfirst.data.whole_files import Found, array_rows, csv_rows, is_array
from alignfirst.errors import InputError
from alignfirst.extras import need, offline
from alignfirst.files import file_digest, known_digest, reading

CHUNK = 256  # rows of a table in memory at a time
MAX_TABLE = 640 << 20  # bytes of memory that the rows of one table may take: a million of them without long texts
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
CURE = "Name a file of JSON (lines or an array; .gz too), .csv or .parquet, a save_to_disk folder, or a hub id."


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


def source_of(name: str | Path, split: str = "train") -> Source:
    """The source of a name: a file, a folder, a hub id (`id@revision`); `split` is one of a data set's.

    Raises InputError where there is none, or one of another kind.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix == ".parquet":
            return ParquetRows(path)
        if {".csv", ".tsv"} & set(path.suffixes):
            return Numbered(path, csv_rows)
        return Numbered(path, array_rows) if is_array(path) else JsonLines(path)
    if path.is_dir() or (HUB_ID.fullmatch(str(name)) and not path.exists()):
        return DataSet(str(name), split)
    raise InputError("data must be there", str(name), CURE)


def table_of(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """All rows of a file of log-probabilities, as they stand there, and their lines.

    Raises InputError for a row that is none, naming its line, and where the rows take more than MAX_TABLE bytes.
    """
    if not path.is_file():
        raise InputError("log-probabilities must be in a file", str(path), "JSON lines or Parquet, see docs/audit.md.")
    rows: list[dict[str, Any]] = []
    lines, size = [], 0
    for placed in source_of(path).rows():
        if placed.cells is None:
            cure = "Write one JSON object a line, UTF-8; for an array, `jq -c '.[]'` makes one of it."
            rule = f"every line must be a JSON object of at most {MAX_LINE >> 20} MB"
            raise InputError(rule, f"line {placed.line}: {placed.wrong}", cure)
        rows.append({intern(name): value for name, value in placed.cells.items()})  # names are shared by all rows
        lines.append(placed.line)
        size += _memory(rows[-1])
        if size > MAX_TABLE:
            rule = f"log-probabilities must fit into memory: rows that take at most {MAX_TABLE >> 20} MB"
            raise InputError(rule, f"more from line {placed.line} of {path} on", "Audit a random part of the rows.")
    return rows, lines


def _memory(value: Any) -> int:
    """Bytes that a value takes with all that is in it, names left out."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return getsizeof(value) + sum(_memory(v) if isinstance(v, dict | list) else getsizeof(v) for v in inner)


class JsonLines:
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
                yield decoded(line_at(f, position))


class Numbered:
    """A file whose rows are found only one after the other: CSV, a JSON array. A position is a row's number, from 0."""

    def __init__(self, path: Path, read: Callable[[Path], Iterator[Found]]) -> None:
        self.path, self.read = path, read
        self.identity = file_identity(path)

    def rows(self) -> Iterator[Placed]:
        for number, (line, cells, wrong) in enumerate(self.read(self.path)):
            yield Placed(line, number, cells, wrong)

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        wanted = iter(positions)
        position = next(wanted, None)
        for number, (_, cells, _) in enumerate(self.read(self.path)):
            while position == number:
                assert cells is not None  # it was read before
                yield cells
                position = next(wanted, None)
            if position is None:
                return


class ParquetRows:
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
                yield Placed(number + 1, number, None if cells is None else without_nulls(cells), wrong)
                number += 1

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        wanted = iter(positions)
        position, begin = next(wanted, None), 0
        for batch in self.file.iter_batches(batch_size=CHUNK):
            while position is not None and position < begin + batch.num_rows:
                cells = next(_cells(batch.slice(position - begin, 1)))
                assert cells is not None  # it was read before
                yield without_nulls(cells)
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
        self.data, self.identity = open_dataset(name, split)

    def rows(self) -> Iterator[Placed]:
        for number, cells in enumerate(self.data):
            yield Placed(number + 1, number, without_nulls(cells))

    def at(self, positions: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        return (without_nulls(self.data[position]) for position in positions)


def without_nulls(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table without the nulls inside its cells: Arrow gives each object all keys that any of them has.

    `content` may be null in earnest, beside calls of tools.
    """

    def inner(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: inner(v) for k, v in value.items() if v is not None or k == "content"}
        return [inner(v) for v in value] if isinstance(value, list) else value

    return {name: inner(value) for name, value in cells.items()}


def file_identity(path: Path) -> str:
    """`sha256:` and the digest of a file; hashed once as long as it does not change."""
    return f"sha256:{known_digest(path)}"


def open_dataset(name: str, split: str) -> tuple[Any, str]:
    """The rows of one split of a data set, memory-mapped, and what identifies them. No code of the data set is run.

    `name`: a folder that `save_to_disk` made, or a hub id (`id@revision`). Raises InputError.
    """
    need("datasets")
    import datasets

    datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = _of_folder(datasets, folder)
        return _split(found, split, name), _identity(folder)
    place, _, revision = name.partition("@")
    try:
        found = datasets.load_dataset(place, revision=revision or None, split=split)
    except Exception as e:  # whatever the hub, the cache and the files behind it trip over
        cure = "Unset HF_HUB_OFFLINE once to fetch it." if offline() else "Check its id and split, or name a file."
        raise InputError("the data set must be in the hub cache or within reach", f"{name}: {e}", cure) from e
    return found, f"{name}:{split}:{found._fingerprint}"


def _of_folder(datasets: Any, folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        cure = "Name the folder that save_to_disk made, or one of its files of JSON lines or Parquet."
        raise InputError("a data folder must be one of the datasets library", str(folder), cure)
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as e:  # damaged files: the library raises what its parts raise
        raise InputError("the data folder must load", f"{folder}: {e}", "Save it again.") from e


def _split(found: Any, split: str, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    if split not in found:
        raise InputError("data.split must be one of the data set's", split, f"{name} has {', '.join(found)}.")
    return found[split]


def _identity(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".arrow", ".json")):
        total.update(f"{file.relative_to(folder)} {file_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"
