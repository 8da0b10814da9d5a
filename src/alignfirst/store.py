"""Content-addressed artefacts in shards: written atomically, a digest each, verified whenever they are read.

A shard is one line of JSON, `{"format": 1, "entries": [[key, offset, length, sha256], ...]}`, then the payloads without
gaps; offsets count from the end of that line. Its file name is the digest of the line, so that the index needs the
first line of each file only and still notices when it was damaged. Many cells share a shard because one fsync a cell
would cost more than the cell. Reading an index changes nothing on disk; damage is moved away by `get`, `get_many` and
`heal`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import StoreError, shorten
from alignfirst.files import (
    QUARANTINE,
    Block,
    Buffer,
    dtype_code,
    quarantine,
    reading,
    safetensors,
    sweep,
    write_atomic,
    writing,
)
from alignfirst.nodes import Artefact

FORMAT = 1
SUFFIX = ".shard"
PARTIAL = "partial"  # where nodes that are under way keep what they have done
OLD = 3600.0  # seconds after which a temporary file must belong to a killed writer
HEADER_LIMIT = 1 << 28
BLOCK = 1 << 20


@dataclass(frozen=True)
class Scratch:
    """Where a node may keep what it has done so far, every so many seconds: a folder of its own, gone when it is done.

    Whoever runs a node sets `SCRATCH`; what computes it may look, and need not. Nothing there may change its output.
    What is found damaged goes to `quarantine`.
    """

    root: Path
    seconds: float
    quarantine: Path

    def folder(self, key: str) -> Path:
        return self.root / key


SCRATCH: ContextVar[Scratch | None] = ContextVar("scratch", default=None)


class CorruptError(StoreError):
    """Stored bytes are not those that were written. The damaged file is in quarantine; running again recomputes."""


class MissingError(StoreError):
    """An artefact was asked for that is not there."""


class Entry(NamedTuple):
    """Where a payload is: shard file, offset from the start of the file, length, sha256."""

    shard: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class _Shard:
    """What the first line of a file says. `intact` is False when the line or the size of the file is not as written."""

    entries: Mapping[str, Entry]
    intact: bool


def encode(artefact: Artefact) -> list[Buffer]:
    """An artefact as a safetensors file in chunks, the same for equal content; arrays are looked into, not copied.

    Raises ValueError for a NaN in its metadata and for an array whose type the format does not have.
    """
    meta = json.dumps(artefact.meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return list(safetensors({name: _block(name, a) for name, a in artefact.arrays.items()}, {"meta": meta}))


def _block(name: str, array: NDArray[Any]) -> Block:
    """An array as it lies in memory; a copy where that is not in the order of indices, lowest byte first."""
    array = np.asarray(array)
    code = dtype_code(array.dtype.name)
    if code is None:
        raise ValueError(f"array {name} is of type {array.dtype}, which has no file format")
    plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    view = plain.reshape(-1).view(np.uint8).data
    return Block(code, array.shape, view.nbytes, lambda: view)


def decode(payload: bytes, arrays: bool = True) -> Artefact:
    """The artefact of the joined chunks of `encode`; without arrays, the head of a payload is enough.

    Raises ValueError for bytes that `encode` did not make.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    end = 8 + int.from_bytes(payload[:8], "little")
    try:
        found = load(payload) if arrays else {}
        meta = json.loads(json.loads(payload[8:end])["__metadata__"]["meta"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(f"no artefact: {type(e).__name__}: {e}") from e
    if not isinstance(meta, dict):
        raise ValueError(f"no artefact: its metadata are of type {type(meta).__name__}")
    return Artefact(found, meta)


def _content(f: IO[bytes], entry: Entry, arrays: bool) -> tuple[bytes, str]:
    """A payload, or its head alone, and the digest of all of it."""
    f.seek(entry.offset)
    if arrays:
        payload = f.read(entry.length)
        return payload, hashlib.sha256(payload).hexdigest()
    head = f.read(8)
    head += f.read(min(int.from_bytes(head, "little"), entry.length - len(head)))
    total, left = hashlib.sha256(head), entry.length - len(head)
    while left > 0 and (block := f.read(min(left, BLOCK))):
        total.update(block)
        left -= len(block)
    return head, total.hexdigest()


class Store:
    """Artefacts by key under one directory. Any number of processes may read and put at once.

    The index is read on first use and again by `refresh`, or when a key is asked for that it does not hold.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._shards: dict[str, _Shard] = {}
        self._index: dict[str, Entry] | None = None
        self._swept = False

    # -- reading ----------------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether the key was in the index when that was last read."""
        return key in self._entries()

    def keys(self) -> set[str]:
        return set(self._entries())

    def digests(self) -> dict[str, str]:
        """sha256 of every payload, by key, in the order of the keys."""
        return {key: entry.sha256 for key, entry in sorted(self._entries().items())}

    def damaged(self) -> list[str]:
        """Names of shards whose first line or size is not as written."""
        self._entries()
        return sorted(name for name, shard in self._shards.items() if not shard.intact)

    def refresh(self) -> None:
        """Read the first lines of shards that are new since the last look; forget those that are gone."""
        present = self._list()
        self._shards = {name: s for name, s in self._shards.items() if name in present}
        for name in present - self._shards.keys():
            shard = self._read_header(name)
            if shard is not None:
                self._shards[name] = shard
        index: dict[str, Entry] = {}
        for name in sorted(self._shards):
            for key, entry in self._shards[name].entries.items():
                # Two shards may hold one key (a task that was repeated). Smallest digest: independent of file order.
                if key not in index or entry.sha256 < index[key].sha256:
                    index[key] = entry
        self._index = index

    def get(self, key: str) -> Artefact:
        """The artefact of a key. Raises CorruptError when its bytes are damaged, MissingError when it is not there."""
        return self.get_many([key])[key]

    def get_many(self, keys: Iterable[str], arrays: bool = True) -> dict[str, Artefact]:
        """Artefacts by key, each file opened once; every byte is verified, also where `arrays` is False and only
        metadata is kept. Raises as `get` does."""
        wanted = list(dict.fromkeys(keys))
        if any(key not in self._entries() for key in wanted):
            self.refresh()
        self._refuse_missing([key for key in wanted if key not in self._entries()])
        found: dict[str, Artefact] = {}
        for name, group in self._by_shard(wanted).items():
            payloads, bad = self._read(name, group, arrays)
            if bad and not (self.root / name).exists():  # another process put it into quarantine
                self.refresh()
                return self.get_many(wanted, arrays)
            if bad:
                raise CorruptError(self._quarantine(name))
            for key, payload in payloads.items():
                try:
                    found[key] = decode(payload, arrays)
                except ValueError as e:  # written by somebody else, and truthfully digested
                    raise CorruptError(self._quarantine(name, {key})) from e
        return {key: found[key] for key in wanted}

    def heal(self) -> list[str]:
        """Verify every byte; move damaged shards away, keeping their good entries. Returns what was done, in words."""
        self.refresh()
        done = []
        for name, shard in sorted(self._shards.items()):
            if not shard.intact or self._read(name, list(shard.entries.items()), arrays=False)[1]:
                done.append(self._quarantine(name))
        return done

    # -- writing ----------------------------------------------------------------------------------------------------

    def put_many(self, items: Sequence[tuple[str, Artefact]]) -> dict[str, str]:
        """Store artefacts in one shard; those that are there already stay as they are. Returns key -> sha256.

        Raises StoreError when the shard cannot be written; nothing that was stored before is touched.
        """
        self._put({key: encode(artefact) for key, artefact in items if not self.has(key)})
        return {key: self._entries()[key].sha256 for key, _ in items}

    def put_encoded(self, payloads: Mapping[str, Sequence[Buffer]]) -> dict[str, str]:
        """Store what `encode` made, by key, as `put_many` stores artefacts."""
        self._put({key: payload for key, payload in payloads.items() if not self.has(key)})
        return {key: self._entries()[key].sha256 for key in payloads}

    def _put(self, payloads: Mapping[str, Sequence[Buffer]]) -> None:
        if not payloads:
            return
        offset, entries = 0, []
        for key, payload in sorted(payloads.items()):
            digest, length = hashlib.sha256(), 0
            for chunk in payload:
                digest.update(chunk)
                length += len(chunk)
            entries.append([key, offset, length, digest.hexdigest()])
            offset += length
        header = json.dumps({"format": FORMAT, "entries": entries}, separators=(",", ":")).encode() + b"\n"
        name = _name(header)
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            sweep(self.root, OLD)
            self._swept = True
        chunks = (chunk for _, payload in sorted(payloads.items()) for chunk in payload)
        write_atomic(self.root / name, chain([header], chunks))
        shard = _parse(header, name, len(header) + offset)
        self._shards[name] = shard
        self._entries().update((k, e) for k, e in shard.entries.items() if k not in self._entries())

    # -- work under way ---------------------------------------------------------------------------------------------

    def scratch(self, seconds: float) -> Scratch:
        """Room for nodes that take longer than so many seconds."""
        return Scratch(self.root / PARTIAL, seconds, self.root / QUARANTINE)

    def forget_partial(self, keys: Iterable[str] | None = None) -> None:
        """Remove what nodes kept on their way, now that they are stored; all of it without `keys`."""
        folder = self.root / PARTIAL
        if folder.exists():
            for path in [folder] if keys is None else [folder / key for key in keys]:
                shutil.rmtree(path, ignore_errors=True)

    # -- files ------------------------------------------------------------------------------------------------------

    def _entries(self) -> dict[str, Entry]:
        if self._index is None:
            self.refresh()
        assert self._index is not None
        return self._index

    def _list(self) -> set[str]:
        with reading(self.root):
            try:
                with os.scandir(self.root) as found:
                    return {entry.name for entry in found if entry.name.endswith(SUFFIX)}
            except (FileNotFoundError, NotADirectoryError):
                return set()

    def _read_header(self, name: str) -> _Shard | None:
        with reading(self.root / name):
            try:
                with open(self.root / name, "rb") as f:
                    header = f.readline(HEADER_LIMIT)
                    return _parse(header, name, os.fstat(f.fileno()).st_size)
            except FileNotFoundError:  # another process moved it to quarantine between listing and opening
                return None

    def _by_shard(self, keys: Iterable[str]) -> dict[str, list[tuple[str, Entry]]]:
        groups: dict[str, list[tuple[str, Entry]]] = {}
        for key in keys:
            entry = self._entries()[key]
            groups.setdefault(entry.shard, []).append((key, entry))
        return groups

    def _read(
        self, name: str, group: Sequence[tuple[str, Entry]], arrays: bool = True
    ) -> tuple[dict[str, bytes], list[str]]:
        """Payloads (or heads alone) whose digest agrees, and keys of the others."""
        good: dict[str, bytes] = {}
        with reading(self.root / name):
            try:
                with open(self.root / name, "rb") as f:
                    for key, entry in sorted(group, key=lambda item: item[1].offset):
                        payload, digest = _content(f, entry, arrays)
                        if digest == entry.sha256:
                            good[key] = payload
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EIO):  # no permission or no file handle left is not damage
                    raise
        return good, [key for key, _ in group if key not in good]

    def _refuse_missing(self, missing: list[str]) -> None:
        if not missing:
            return
        if damaged := self.damaged():
            raise CorruptError(" ".join(self._quarantine(name) for name in damaged))
        cure = "Run the same command again to recompute them."
        raise MissingError(f"{len(missing)} artefacts are not in {self.root}, the first is {missing[0]}. {cure}")

    def _quarantine(self, name: str, strange: Collection[str] = ()) -> str:
        """Save the good entries of a damaged shard, move it away, and say so. Those that are `strange` are not good."""
        shard, path = self._shards[name], self.root / name
        good, bad = self._read(name, [item for item in shard.entries.items() if item[0] not in strange])
        bad += strange
        elsewhere = {k for n, s in self._shards.items() if n != name for k in s.entries}
        where = f"It was moved to {QUARANTINE}/, what was good is kept"
        try:
            # Saved before the move, so that other processes never miss a good entry. If every entry was good (bytes
            # were appended), the new shard has the old name and has just replaced the damaged one.
            self._put({key: [payload] for key, payload in good.items() if key not in elsewhere})
            if not self._shards[name].intact or bad:
                quarantine(path, self.root / QUARANTINE)
        except StoreError:  # a read-only copy of a run: the damage is still worth telling
            where = "It could not be moved away"
        self.refresh()
        lost = f"{len(bad)} of its {len(shard.entries)} artefacts are damaged" if bad else "it is not as it was written"
        return f"{path}: {lost}. {where}. Run the same command again to recompute what is missing."


def _name(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()[:32] + SUFFIX


def _parse(header: bytes, name: str, size: int) -> _Shard:
    """Entries that lie within the file; none when the line is not the one that gave the file its name, or is no index.

    Raises StoreError for a file of another format.
    """
    entries = _index(header, name) if _name(header) == name else None
    if entries is None:
        return _Shard({}, intact=False)
    end = len(header) + sum(entry.length for entry in entries.values())
    within = {key: entry for key, entry in entries.items() if entry.offset + entry.length <= size}
    return _Shard(entries=within, intact=size == end)


def _index(header: bytes, name: str) -> dict[str, Entry] | None:
    """What a first line says; None where it is none that a Store writes, for anybody may name a file by its digest."""
    try:
        raw = json.loads(header)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or type(raw.get("format")) is not int or not isinstance(raw.get("entries"), list):
        return None
    if raw["format"] != FORMAT:
        newer = raw["format"] > FORMAT
        cure = "Install a newer alignfirst." if newer else "Choose another --out: an older alignfirst wrote this store."
        found = shorten(str(raw["format"]), 20)
        raise StoreError(f"{name} has format {found}, this version reads {FORMAT}. {cure}")
    entries: dict[str, Entry] = {}
    at = len(header)
    for item in raw["entries"]:
        if not isinstance(item, list) or [type(x) for x in item] != [str, int, int, str]:
            return None
        key, offset, length, sha256 = item
        if key in entries or length < 0 or len(header) + offset != at:
            return None
        entries[key] = Entry(name, at, length, sha256)
        at += length
    return entries
