"""Bytes that change on the disk: caught whenever they are used, put aside, computed again; never shown."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import content
from ledger import Count
from toy_world import ToyConfig

from alignfirst import report
from alignfirst.errors import StoreError
from alignfirst.store import QUARANTINE, CorruptError, Store
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import DIGESTED, RunDir
from alignfirst.study.runner import run

CONFIG: dict[str, Any] = {"seeds": 3, "algorithms": ["ppo", "dpo-offline"], "beta": [0.1, 0.2, 0.3]}
Counter = Callable[[str], Count]
Damage = Callable[[bytearray, int], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
    return out


def flip(data: bytearray, at: int) -> None:
    data[at] ^= 1 << (at % 8)


def cut(data: bytearray, at: int) -> None:
    del data[at:]


def damages(files: list[Path], cuts: int, flips: int) -> list[tuple[Path, Damage, int]]:
    """So many cuts at offsets spread over a file, and single bits flipped anywhere."""
    rng = random.Random(20250923)
    found: list[tuple[Path, Damage, int]] = []
    for how, times in ((cut, cuts), (flip, flips)):
        for i in range(times):
            path = rng.choice(files)
            size = path.stat().st_size
            found.append((path, how, i * size // times if how is cut else rng.randrange(size)))
    return found


MANY = [(2, 10), pytest.param((10, 100), marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", MANY)
def test_damaged_artefacts(whole: Path, tmp_path: Path, count: Counter, times: tuple[int, int]) -> None:
    """Any artefact that was cut short or has a single bit flipped is noticed when it is next used, moved to quarantine
    and computed again, to the same bytes, while the good ones beside it stay."""
    counted, out = count("rot: artefacts"), tmp_path / "run"
    pristine = content(whole)
    shutil.copytree(whole, out)
    for shard, how, at in damages(sorted((whole / "store").glob("*.shard")), *times):
        with counted.trial():
            path = out / "store" / shard.name
            data = bytearray(path.read_bytes())
            how(data, at)
            path.write_bytes(data)
            store = Store(out / "store")
            with pytest.raises(CorruptError, match=r"moved to quarantine/.*Run the same command again"):
                store.get_many(pristine["store"])
            assert list((out / "store" / QUARANTINE).iterdir())
            lost = pristine["store"].keys() - store.keys()
            result = run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
            assert result.counts["computed"] == len(lost)
            assert result.counts["reused"] == len(pristine["store"]) - len(lost)
            assert content(out) == pristine
            shutil.rmtree(out)
            shutil.copytree(whole, out)


@pytest.mark.parametrize("times", MANY)
def test_damaged_outputs(whole: Path, tmp_path: Path, count: Counter, times: tuple[int, int]) -> None:
    """No report is built from records, statistics, exhibits, a config or a manifest that are not what the run wrote;
    the same command again rebuilds them from the store."""
    counted, out = count("rot: records and manifest"), tmp_path / "run"
    pristine = content(whole)
    shutil.copytree(whole, out)
    shown = [whole / name for name in (*DIGESTED, "manifest.json") if name != "records.csv"]
    for file, how, at in damages(shown, *times):
        with counted.trial():
            path = out / file.name
            data = bytearray(path.read_bytes())
            how(data, at)
            path.write_bytes(data)
            with pytest.raises(StoreError, match=f"{path.name}.*[Rr]un"):
                report.build(out)
            assert not (out / "report.html").exists()
            assert run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0)).counts["computed"] == 0
            assert content(out) == pristine
            assert RunDir(out).manifest() is not None
            shutil.rmtree(out)
            shutil.copytree(whole, out)
