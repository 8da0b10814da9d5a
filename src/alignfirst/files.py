"""Files that are there whole or not at all, and words for a disk that refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignfirst.errors import InputError, StoreError

TMP = ".tmp"

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


def write_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that is there whole or not at all, even after a power cut. Raises StoreError; leaves no debris."""
    tmp = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TMP}")
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


def default_cache() -> Path:
    """Where converted models, indexes of data and what audits drew are kept: $ALIGNFIRST_CACHE, else the user's cache
    directory."""
    own = os.environ.get("ALIGNFIRST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignfirst"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
