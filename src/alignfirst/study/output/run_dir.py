"""The directory of one run: who may write to it, what it holds, whether that is still what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from alignfirst import files
from alignfirst.errors import AlignfirstError, InputError, shorten
from alignfirst.study.config import yaml_io
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.output.lock import HOLDER, LOCK, holder, locked
from alignfirst.study.output.manifest import Manifest, flaw

MANIFEST, CONFIG, TIMINGS, ERRORS = "manifest.json", "config.yaml", "timings.jsonl", "errors.log"
EVENTS = "events.jsonl"
TAIL = 4_096  # bytes from the end that hold the last event
DIGESTED = ("config.yaml", "records.jsonl", "records.csv", "statistics.json", "exhibits.json")


def config_text(config: StudyConfig) -> str:
    """What `config.yaml` holds: every key, resolved."""
    return yaml_io.dumps(config.resolved())


_OTHER = "Choose another --out."


class RunDir:
    """Paths and files of a run. Making one touches nothing; `lock` is what makes it yours."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def store(self) -> Path:
        return self.path / "store"

    # -- reading ----------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None where there is none that can be read and is as it was written."""
        try:
            found = json.loads((self.path / MANIFEST).read_bytes())
            return None if flaw(found) else found
        except (OSError, ValueError, RecursionError):
            return None

    def changed(self, manifest: Mapping[str, Any]) -> list[str]:
        """Names of digested files that are missing or not what the manifest says."""
        digests = manifest.get("digests") or {}
        return [name for name in DIGESTED if self.digest(name) is None or self.digest(name) != digests.get(name)]

    def digest(self, name: str) -> str | None:
        """SHA-256 of a file; None for one that is not there."""
        try:
            return files.file_digest(self.path / name)
        except OSError:
            return None

    def timings(self) -> list[dict[str, Any]]:
        """One dict a task that was run here, oldest first."""
        try:
            data = (self.path / TIMINGS).read_bytes()
        except OSError:
            return []
        return [line for line in files.json_lines(data) if _is_timing(line)]

    def last_event(self) -> dict[str, Any] | None:
        """The last whole line of the event log; None where there is none."""
        with suppress(OSError), open(self.path / EVENTS, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - TAIL))
            found = files.json_lines(f.read())
            return found[-1] if found else None
        return None

    def check(self, config: StudyConfig) -> None:
        """Raises InputError where the directory holds another study, or things that are no study."""
        try:
            os.access(self.path, os.F_OK)  # `exists` below takes a NUL for a file that is not there
            there = self.path.exists()
        except (OSError, ValueError) as e:  # a name too long for the file system, or with a NUL
            why = f"{shorten(str(self.path), 60)} ({getattr(e, 'strerror', None) or e})"
            raise InputError("a run directory must have a name that the file system takes", why, _OTHER) from e
        if there and not self.path.is_dir():
            raise InputError("a run directory must be a directory", str(self.path), _OTHER)
        for folder in (self.path, self.store):
            files.refuse_links(folder)
        stored = self.path / CONFIG
        if not stored.exists():
            with suppress(OSError):
                others = [p.name for p in self.path.iterdir() if not _may_stand_beside(p.name)]
                if others:
                    given = f"{self.path} with {others[0]} in it"
                    raise InputError("a new run needs an empty directory", given, "Choose another --out.")
            return
        with files.reading(stored):
            text = stored.read_bytes()
        if not (text == config_text(config).encode() or self._was_of(config) or _reads_as(config, text)):
            cure = f"Choose another --out, or remove {self.path} to start anew."
            raise InputError("a run directory holds one study", f"{self.path}, which holds another", cure)

    def _was_of(self, config: StudyConfig) -> bool:
        """Whether the config that was written here was this one, whatever stands in the file now."""
        digests = (self.manifest() or {"digests": {}})["digests"]
        ours = hashlib.sha256(config_text(config).encode()).hexdigest()
        return bool(digests.get(CONFIG) == ours)

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all. Raises StoreError."""
        files.write_atomic(self.path / name, [text.encode()])

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """As `write`; raises ValueError for a NaN or infinity."""
        self.write(name, json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n")

    def write_manifest(self, manifest: Manifest) -> None:
        self.write(MANIFEST, json.dumps(files.sealed(manifest.model_dump(mode="json")), indent=2) + "\n")

    def append(self, name: str, text: str) -> None:
        """Add whole lines to a log; a line that a crash cut short is ended first."""
        path = self.path / name
        with files.writing(path), open(path, "ab+") as f:
            if f.tell():
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":
                    text = "\n" + text
            f.write(text.encode())

    def append_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Add a line of JSON to a log; raises ValueError for a NaN or infinity."""
        self.append(name, json.dumps(value, allow_nan=False) + "\n")

    # -- the lock ---------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make the directory. Raises StoreError."""
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the directory for this process, see `lock.locked`."""
        self.make()
        return locked(self.path)

    def holder(self) -> dict[str, Any] | None:
        """Who works on the directory at this moment, see `lock.holder`."""
        return holder(self.path)


def _reads_as(config: StudyConfig, text: bytes) -> bool:
    """Whether a stored config says the same in other words, as that of an earlier version does: it lacks new keys."""
    try:
        return type(config).model_validate(yaml_io.loads(text)).resolved() == config.resolved()
    except (AlignfirstError, ValueError):
        return False


def _is_timing(value: Mapping[str, Any]) -> bool:
    numbers = (value.get("nodes"), value.get("seconds"))
    texts = (value.get("kind"), value.get("label"))
    return all(isinstance(n, int | float) for n in numbers) and all(isinstance(t, str) for t in texts)


def _may_stand_beside(name: str) -> bool:
    """Files of a run that was killed before it could say what it is, and what file systems and desktops leave."""
    return name in (LOCK, HOLDER, "lost+found") or name.startswith(".") or name.endswith(files.TMP)
