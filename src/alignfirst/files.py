"""Files that are there whole or not at all, digests by which damage is noticed, and words for a disk that refuses.

Whoever keeps files for later writes them with `write_atomic`, `write_digested` or `whole_folder`, tells their digests
in JSON that has one of its own (`sealed`), compares them when reading, and moves what differs away (`quarantine`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from alignfirst.errors import InputError, StoreError

TMP = ".tmp"
QUARANTINE = "quarantine"
Buffer = bytes | memoryview
# of a safetensors file, in the order in which the library lays arrays out, the last first
DTYPES = ("BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64")
LETTERS = {"float": "F", "int": "I", "uint": "U", "bfloat": "BF", "complex": "C"}  # of a type's name in NumPy and torch

CURES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space (quota)",
    errno.EFBIG: "Raise the limit on file size (ulimit -f)",
    errno.EACCES: "Make it writable or choose another --out",
    errno.EPERM: "Make it writable or choose another --out",
    errno.EROFS: "The file system is read-only: choose another --out",
    errno.ENOTDIR: "A part of the path is a file: choose another --out",
    errno.EEXIST: "A file stands where a directory must be: choose another --out",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError with path, reason and cure."""
    try:
        yield
    except OSError as e:
        cure = CURES.get(e.errno or 0, "Repair that")
        reason = e.strerror or str(e)
        raise StoreError(
            f"{path} cannot be written: {reason}. {cure}, then run the same command again: finished work is kept."
        ) from e


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError with path and reason."""
    try:
        yield
    except OSError as e:
        raise StoreError(f"{path} cannot be read: {e.strerror or e}. Repair that, then try again.") from e


def write_atomic(path: Path, chunks: Iterable[Buffer]) -> None:
    """Write a file that is there whole or not at all, even after a power cut. Raises StoreError; leaves no debris."""
    tmp = _beside(path, path.name)
    with writing(path):
        try:
            with open(tmp, "xb") as f:
                for chunk in chunks:
                    f.write(chunk)
                f.flush()
                os.fsync(f.fileno())
            os.replace(tmp, path)
        except BaseException:
            with suppress(OSError):
                tmp.unlink()
            raise
        _sync_directory(path.parent)


def write_digested(path: Path, chunks: Iterable[Buffer]) -> str:
    """Write as `write_atomic` does; the SHA-256 of what was written."""
    digest = hashlib.sha256()

    def seen() -> Iterator[Buffer]:
        for chunk in chunks:
            digest.update(chunk)
            yield chunk

    write_atomic(path, seen())
    return digest.hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is asked for, which takes its place when the block is done.

    That place must be free, or an empty folder. Raises StoreError.
    """
    folder = folder.absolute()
    partial = _beside(folder, "")
    try:
        with writing(folder):
            partial.mkdir(parents=True)
        yield partial
        with writing(folder):
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{name}.{os.getpid()}-{secrets.token_hex(4)}{TMP}")


# -- digests ----------------------------------------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def known_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once a process for as long as its size and its time of change stay.

    Raises StoreError.
    """
    with reading(path):
        about = path.stat()
        return _digest_of(path.resolve(), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


def json_digest(value: Any) -> str:
    """SHA-256 of plain data, whatever the order of keys. Raises ValueError for what is no JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(said: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with their digest as the last entry; what was sealed as it was written is equal to itself sealed."""
    bare = {name: value for name, value in said.items() if name != "digest"}
    return bare | {"digest": json_digest(bare)}


def json_lines(data: bytes) -> list[dict[str, Any]]:
    """Objects of a log of JSON lines. A line that a crash cut short is left out, the others stand."""
    found = []
    for line in data.decode(errors="replace").splitlines():
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(value)
    return found


def quarantine(path: Path, folder: Path) -> bool:
    """Move a damaged file into a folder, under a name of its own; whether it was there. Raises StoreError."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(path, folder / f"{path.name}.{secrets.token_hex(4)}")
        except FileNotFoundError:  # another process was faster
            return False
    return True


# -- arrays -----------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """An array of a safetensors file: one of DTYPES, its shape, its number of bytes, and how to get them."""

    dtype: str
    shape: Sequence[int]
    size: int
    content: Callable[[], Buffer]


def dtype_code(name: str) -> str | None:
    """One of DTYPES for a type's name in NumPy or torch, such as `float32`; None where the format has none."""
    kind = name.rstrip("0123456789")
    code = "BOOL" if name == "bool" else f"{LETTERS.get(kind)}{name.removeprefix(kind)}"
    return code if code in DTYPES else None


def safetensors(blocks: Mapping[str, Block], metadata: Mapping[str, str] | None = None) -> Iterator[Buffer]:
    """A safetensors file in chunks: the bytes that the library makes, without its second copy of all in memory."""
    ordered = sorted(blocks.items(), key=lambda item: (-DTYPES.index(item[1].dtype), item[0]))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, block in ordered:
        places = [offset, offset := offset + block.size]
        header[name] = {"dtype": block.dtype, "shape": list(block.shape), "data_offsets": places}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, block in ordered:
        if block.size:
            yield block.content()


# -- directories ------------------------------------------------------------------------------------------------------


def default_cache() -> Path:
    """Where converted models, indexes of data and what audits drew are kept: $ALIGNFIRST_CACHE, else the user's cache
    directory."""
    own = os.environ.get("ALIGNFIRST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignfirst"


def sweep(directory: Path, older_than: float = 0.0) -> None:
    """Remove temporary files that killed writers left, if they are older than so many seconds."""
    for tmp in directory.glob(f"*{TMP}"):
        with suppress(OSError):
            if time.time() - tmp.stat().st_mtime >= older_than:
                tmp.unlink()


def refuse_links(directory: Path) -> None:
    """A directory from elsewhere may hold links that lead out of it, through which writing would reach other files.

    The directory itself may be one: it is the place that its user chose. Raises InputError.
    """
    with reading(directory):
        try:
            found = [entry.path for entry in os.scandir(directory) if entry.is_symlink()]
        except (FileNotFoundError, NotADirectoryError):
            return
    inside = directory.resolve()
    for path in sorted(found):
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(inside):
            cure = "Remove the link; to keep a run on another disk, name a folder there with --out."
            raise InputError("nothing in a run directory may lead out of it", f"{path} -> {target}", cure)


def _sync_directory(directory: Path) -> None:
    """Make a rename last. Some file systems cannot; then the rename is as good as it gets."""
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
