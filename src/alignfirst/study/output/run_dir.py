"""The directory of one run: who may write to it, what it holds, whether that is still what was written."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignfirst import files
from alignfirst.errors import AlignfirstError, InputError, RunLockedError, shorten
from alignfirst.study.config import yaml_io
from alignfirst.study.config.study_config import StudyConfig

MANIFEST_VERSION = 2  # 1 had no digest of its own
MANIFEST, CONFIG, TIMINGS, ERRORS = "manifest.json", "config.yaml", "timings.jsonl", "errors.log"
EVENTS = "events.jsonl"
TAIL = 4_096  # bytes from the end that hold the last event
DIGESTED = ("config.yaml", "records.jsonl", "records.csv", "statistics.json", "exhibits.json")
LOCK, HOLDER = "run.lock", "run.lock.json"
HOLDER_WAIT, HOLDER_LOOKS = 1.0, 20  # seconds for which a holder's name is looked for, and how often
LIBRARIES = ("numpy", "scipy", "numba", "safetensors")


def _each(kind: type, value: object) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return values is not None and all(type(v) is kind for v in values)


def _text(value: object) -> bool:
    return isinstance(value, str)


# What a manifest's entries must look like to be read; `None` comes before a run knows better.
SHAPE: Mapping[str, Callable[[Any], bool]] = {
    "status": _text,
    "name": _text,
    "preset": _text,
    "version": _text,
    "world": _text,
    "started": _text,
    "command": lambda v: v is None or _text(v),
    "finished": lambda v: v is None or _text(v),
    "seconds": lambda v: v is None or (type(v) in (int, float) and 0 <= v < 1e12),
    "counts": lambda v: isinstance(v, dict) and _each(int, v),
    "digests": lambda v: isinstance(v, dict) and _each(str, {k: d for k, d in v.items() if d is not None}),
    "varied": lambda v: isinstance(v, list) and _each(str, v),
    "seeds": lambda v: isinstance(v, list) and _each(int, v),
    "hardware": lambda v: isinstance(v, dict),
}


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def config_text(config: StudyConfig) -> str:
    """What `config.yaml` holds: every key, resolved."""
    return yaml_io.dumps(config.resolved())


def flaw(manifest: object) -> str | None:
    """Why a manifest is not one that a run wrote; None where it is. It ends with a digest of all that it says.

    Whoever made a directory can also seal it, so what readers count on is looked at, too.
    """
    if not isinstance(manifest, dict):
        return "it holds no JSON object"
    unsealed = manifest.get("manifest_version") == 1 and "digest" not in manifest
    if not unsealed and manifest != seal(manifest):
        return "its own digest differs"
    return next((f"its {name} cannot be" for name, fits in SHAPE.items() if not fits(manifest.get(name))), None)


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its digest as the last entry."""
    said = {name: value for name, value in manifest.items() if name != "digest"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return said | {"digest": hashlib.sha256(text.encode()).hexdigest()}


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
        try:
            return hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        except OSError:
            return None

    def timings(self) -> list[dict[str, Any]]:
        """One dict a task that was run here, oldest first. A line that a crash cut short is left out."""
        try:
            text = (self.path / TIMINGS).read_text()
        except (OSError, ValueError):
            return []
        found = []
        for line in text.splitlines():
            with suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict) and _is_timing(value):
                    found.append(value)
        return found

    def last_event(self) -> dict[str, Any] | None:
        """The last whole line of the event log; None where there is none."""
        with suppress(OSError), open(self.path / EVENTS, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - TAIL))
            for line in reversed(f.read().splitlines()):
                with suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, dict):
                        return value
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

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        said = json.loads(json.dumps(manifest, allow_nan=False))  # as a reader will see it
        self.write(MANIFEST, json.dumps(seal(said), indent=2) + "\n")

    def append(self, name: str, text: str) -> None:
        """Add whole lines to a log; a line that a crash cut short is ended first."""
        path = self.path / name
        with files.writing(path), open(path, "ab+") as f:
            if f.tell():
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":
                    text = "\n" + text
            f.write(text.encode())

    # -- the lock ---------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make the directory. Raises StoreError."""
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process. Raises RunLockedError at once where another holds it.

        The lock is the operating system's, so that a killed holder holds nothing; `run.lock.json` only names it.
        """
        self.make()
        lock = FileLock(self.path / LOCK, timeout=0)
        with files.writing(self.path):
            try:
                lock.acquire()
            except Timeout:  # an OSError, too
                who = _holder_text(self.path)
                raise RunLockedError(
                    f"{self.path} is in use by {who}. Wait until it is done, or choose another --out."
                ) from None
        try:
            files.sweep(self.path)
            me = {"pid": os.getpid(), "host": socket.gethostname(), "started": now()}
            self.write(HOLDER, json.dumps(me) + "\n")
            yield
        finally:
            with suppress(OSError):
                (self.path / HOLDER).unlink()
            lock.release()

    def holder(self) -> dict[str, Any] | None:
        """Who works on the directory at this moment: pid, host, started; None where nobody does."""
        if not (self.path / LOCK).exists():
            return None
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return _named_holder(self.path)
        except OSError:  # a read-only copy
            return None
        lock.release()
        return None


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


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / HOLDER).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named_holder(path: Path) -> dict[str, Any]:
    """As `_holder`, once it has had the time to write its name: until then there is none, or that of a killed one."""
    for _ in range(HOLDER_LOOKS):
        who = _holder(path)
        if who and not _is_dead(who):
            return who
        time.sleep(HOLDER_WAIT / HOLDER_LOOKS)
    return {}


def _is_dead(who: Mapping[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    pid = who.get("pid")
    if who.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        return False
    return False


def _holder_text(path: Path) -> str:
    who = _named_holder(path)
    if not who:
        return "another process"
    return f"process {who.get('pid')} on {who.get('host')} since {who.get('started')}"


def hardware() -> dict[str, Any]:
    """Machine and library versions, for the record; nothing here changes a result's identity."""
    from alignfirst.study.execution.options import available_cores

    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    machine = {"machine": platform.machine(), "system": platform.system(), "cpu": _cpu(), "cores": available_cores()}
    return machine | {"python": platform.python_version()} | versions


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
