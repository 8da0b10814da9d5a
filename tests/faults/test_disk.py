"""Disks that are full, read-only, or lie: a clear error, nothing earlier harmed, and the same result afterwards."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import content as fault_content
from fault_runs import finish, start
from toy_world import ToyConfig

from alignfirst.store import Store
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import DIGESTED
from alignfirst.study.runner import run

DRIVER = Path(__file__).parent / "driver.py"
SETTINGS: dict[str, Any] = {"seeds": 3, "algorithms": ["ppo", "dpo-offline"], "beta": [0.1, 0.2, 0.3]}


def content(out: Path) -> dict[str, Any]:
    return {name: (out / name).read_bytes() for name in DIGESTED} | {"store": Store(out / "store").digests()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    return out


def drive(out: Path, preexec: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DRIVER), str(out), "2", json.dumps(SETTINGS)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=preexec, check=False)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory, with options; skips where that is not allowed."""
    at = tmp_path / "disk"
    at.mkdir()

    def do(options: str) -> Path:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting a small disk needs root")
        kind = [] if "remount" in options else ["-t", "tmpfs", "tmpfs"]
        done = subprocess.run(["mount", "-o", options, *kind, str(at)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        return at

    yield do
    subprocess.run(["umount", str(at)], capture_output=True, check=False)


def refused(done: subprocess.CompletedProcess[str], words: str) -> bool:
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    return True


def test_a_full_disk_is_told_and_more_space_is_all_it_takes(mount: Callable[[str], Path], whole: Path) -> None:
    disk = mount("size=120k")
    out = disk / "run"
    assert refused(drive(out), "No space left on device. Free some space, then run the same command again")
    before = Store(out / "store")
    kept = before.digests()
    assert kept, "else this tests nothing"
    assert before.damaged() == []
    mount("remount,size=8m")
    assert drive(out).returncode == 0
    assert content(out) == content(whole)
    assert kept.items() <= Store(out / "store").digests().items()


def test_a_limit_on_file_size_is_told(whole: Path, tmp_path: Path) -> None:
    limit = max(p.stat().st_size for p in (whole / "store").glob("*.shard")) - 1

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "run"
    assert refused(drive(out, limited), "File too large. Raise the limit on file size")
    assert Store(out / "store").damaged() == []
    assert not list(out.rglob("*.tmp"))
    assert drive(out).returncode == 0
    assert content(out) == content(whole)


def test_a_read_only_disk_is_told(mount: Callable[[str], Path], count: Any) -> None:
    """A run on a read-only file system ends with words that say so."""
    disk = mount("size=1m,ro")
    with count("places: read-only disk").trial():
        words = "Read-only file system. The file system is read-only: choose another --out"
        assert refused(drive(disk / "run"), words)


def test_a_finished_run_on_a_read_only_disk_is_still_nothing_to_do(
    mount: Callable[[str], Path], whole: Path, count: Any
) -> None:
    """A finished run on a read-only file system is read, and there is nothing to do."""
    disk = mount("size=8m")
    shutil.copytree(whole, disk / "run")
    mount("remount,ro")
    with count("places: read-only disk").trial():
        done = drive(disk / "run")
        assert done.returncode == 0, done.stderr
        assert "complete" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert refused(drive(tmp_path / "run"), "Permission denied. Make it writable or choose another --out")
    finally:
        tmp_path.chmod(0o700)


def test_a_path_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(drive(tmp_path / "file" / "run"), "choose another --out")


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_in_the_store_heals(whole: Path, tmp_path: Path, seed: int) -> None:
    """Flips, cuts and zeroed blocks in several shards of a run that is taken up again."""
    rng = random.Random(seed)
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "manifest.json").unlink()
    shards = sorted((out / "store").glob("*.shard"))
    for shard in rng.sample(shards, 3):
        data = bytearray(shard.read_bytes())
        at = rng.randrange(len(data))
        how = rng.choice(["flip", "cut", "zero"])
        if how == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del data[at:]
        else:
            data[at : at + 64] = bytes(len(data[at : at + 64]))
            data[at] = 1  # a block that was zero already would be no damage
        shard.write_bytes(data)
    result = run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    assert len(result.notes) == 3
    assert result.counts["computed"] >= 1
    assert content(out) == content(whole)
    assert Store(out / "store").heal() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_at_twenty_points(mount: Callable[[str], Path], mixture: Any, count: Any) -> None:
    """A disk that is full at any point of a run ends it with words that say so; earlier cells are intact, and once
    there is space the same command finishes the run with the same bytes."""
    counted, disk = count("disk full"), mount("size=64m")
    needed = sum(path.stat().st_size for path in mixture.whole.rglob("*") if path.is_file())
    stored: set[int] = set()
    for point in range(1, 21):
        with counted.trial():
            mount(f"remount,size={max(needed * point // 24 // 1024, 16)}k")
            process = start(mixture.path, disk / "run")
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 1, errors
            assert "No space left on device. Free some space, then run the same command again" in errors
            assert "Traceback" not in errors
            store = Store(disk / "run" / "store")
            assert store.damaged() == []
            kept = store.digests()
            assert all(mixture.content["store"][key] == digest for key, digest in kept.items())
            stored.add(len(kept))
            mount("remount,size=64m")
            finish(mixture.path, disk / "run")
            assert fault_content(disk / "run") == mixture.content
            shutil.rmtree(disk / "run")
    assert len(stored) > 5, "they were full at different points"
