"""What a training has done so far, on disk: whole or not at all, and verified before it is believed.

A checkpoint is two files. NAME.safetensors holds tensors. NAME.json is the manifest: numbers, the digest of the
tensors' file, and a digest of itself; it is written last, so that it vouches for both. What does not verify is moved to
quarantine, and the checkpoint before it is used.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alignfirst.errors import InputError, StoreError
from alignfirst.files import (
    Block,
    Buffer,
    dtype_code,
    file_digest,
    quarantine,
    safetensors,
    sealed,
    sweep,
    write_atomic,
    write_digested,
    writing,
)
from alignfirst.lm.training.processes import Team
from alignfirst.store import SCRATCH

FORMAT = 2  # 1 had its digest beside what it said, and another count of operations
KEPT = 2  # checkpoints; the older one is for the day on which the newer one is damaged
SHARE = 0.05  # of the time, at most, goes into writing them
UPDATE = "update-"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """Part of a training: plain data, and tensors by name."""

    numbers: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """The folder of one training's checkpoints, and how often they are written.

    folder: holds them, and nothing else; made when the first is written.
    seconds: >= 0, between checkpoints; the first comes after so long, so that short trainings pay nothing. A write that
        takes long makes them rarer: they cost at most a twentieth of the time.
    updates: >= 1; exactly every so many updates instead.
    quarantine: where damaged files go; by default a folder in `folder`.

    Raises InputError for numbers out of range. A disk that refuses fails no training, and the log says so.
    """

    def __init__(
        self, folder: Path | str, seconds: float = 30.0, updates: int | None = None, quarantine: Path | None = None
    ) -> None:
        if not seconds >= 0:
            raise InputError("checkpoints must be 0 or more seconds apart", seconds, "30 is the default.")
        if updates is not None and updates < 1:
            raise InputError("checkpoints must be 1 or more updates apart", updates, "Leave it out to go by seconds.")
        self.folder = Path(folder)
        self.seconds, self.updates = seconds, updates
        self.quarantine = quarantine if quarantine is not None else self.folder / "quarantine"
        self._since, self._cost = time.monotonic(), 0.0

    @classmethod
    def of(cls, key: str) -> Checkpoints | None:
        """Those of a node by its key, where its worker gives room for them."""
        scratch = SCRATCH.get()
        if scratch is None:
            return None
        return cls(scratch.folder(key), scratch.seconds, quarantine=scratch.quarantine)

    def due(self, update: int) -> bool:
        """Whether to write one now, after so many updates."""
        if self.updates is not None:
            return update % self.updates == 0
        return time.monotonic() - self._since >= max(self.seconds, self._cost / SHARE)

    def write(self, update: int, state: State) -> bool:
        """Write the checkpoint after so many updates, then drop all but the last two. False where the disk refuses:
        a training is not to fail for want of a copy of it."""
        begin = time.monotonic()
        try:
            self._write(f"{UPDATE}{update:09}", state)
        except StoreError as e:
            log.warning("note: no checkpoint after update %d. %s", update, e)
            return False
        finally:
            self._since, self._cost = time.monotonic(), time.monotonic() - begin
        for old in self.updates_written()[:-KEPT]:
            for path in self._paths(f"{UPDATE}{old:09}"):
                with suppress(OSError):
                    path.unlink()
        return True

    def updates_written(self) -> list[int]:
        """After which updates there are checkpoints, sound or not, oldest first."""
        names = (path.stem for path in self.folder.glob(f"{UPDATE}*.json"))
        return sorted(int(name.removeprefix(UPDATE)) for name in names if name.removeprefix(UPDATE).isdecimal())

    def newest(self) -> tuple[int, State] | None:
        """The last checkpoint that is as it was written. Those after it go to quarantine, and the log says so."""
        for update in reversed(self.updates_written()):
            state = self.read(update)
            if state is not None:
                return update, state
        return None

    def read(self, update: int) -> State | None:
        """One checkpoint, or None where there is no sound one."""
        return self.find(f"{UPDATE}{update:09}")

    def kept(self, team: Team, name: str, make: Callable[[], State]) -> State:
        """What takes long to make again, such as samples of a teacher: made by all processes once, then read.

        The first process decides, so that none waits for others that have nothing to do.
        """
        begin = time.monotonic()
        found = self.find(name) if team.rank == 0 else None
        if team.broadcast(found is not None):
            found = found if found is not None else self.find(name)
            assert found is not None
            return found
        made = make()
        if team.rank == 0 and (self.updates is not None or time.monotonic() - begin >= self.seconds):
            try:
                self._write(name, made)
            except StoreError as e:
                log.warning("note: %s will have to be made again should this be interrupted. %s", name, e)
        return made

    def set_aside(self, why: str) -> None:
        """Move everything to quarantine."""
        names = {path.stem for pattern in ("*.json", "*.safetensors") for path in self.folder.glob(pattern)}
        for name in sorted(names):
            self._set_aside(name, why)

    # -- files ------------------------------------------------------------------------------------------------------

    def _paths(self, name: str) -> tuple[Path, Path]:
        """The manifest first: what it vouches for may go once it is gone."""
        return self.folder / f"{name}.json", self.folder / f"{name}.safetensors"

    def _write(self, name: str, state: State) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        manifest, tensors = self._paths(name)
        # in chunks: the library would need a second copy of everything in memory
        digest = write_digested(tensors, safetensors({name: _block(t) for name, t in state.tensors.items()}))
        said = sealed({"format": FORMAT, "tensors": digest, "numbers": dict(state.numbers)})
        write_atomic(manifest, [json.dumps(said).encode()])

    def find(self, name: str) -> State | None:
        """What was written under a name, if it is as it was written; else it goes to quarantine."""
        manifest, tensors = self._paths(name)
        if not manifest.exists():
            return None
        try:
            found = json.loads(manifest.read_bytes())
            if found == sealed(found) and found["format"] == FORMAT and found["tensors"] == file_digest(tensors):
                with safe_open(tensors, framework="pt") as opened:
                    return State(found["numbers"], {key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
            why = "is not as it was written" if found.get("format") == FORMAT else "is of another version"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as e:
            why = f"cannot be read ({type(e).__name__})"
        self._set_aside(name, why)
        return None

    def _set_aside(self, name: str, why: str) -> None:
        moved = False
        for path in self._paths(name):
            with suppress(StoreError):
                moved |= quarantine(path, self.quarantine)
        where = f"was moved to {self.quarantine}" if moved else "could not be moved away"
        log.warning("note: checkpoint %s %s and %s; training goes on from the one before, or anew.", name, why, where)


def _block(tensor: Tensor) -> Block:
    code = dtype_code(str(tensor.dtype).removeprefix("torch."))
    assert code is not None, tensor.dtype
    return Block(code, tensor.shape, tensor.numel() * tensor.element_size(), partial(_bytes, tensor))


def _bytes(tensor: Tensor) -> Buffer:
    """Of one tensor at a time, for a GPU's must be copied to be written."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
