"""SIGINT and SIGTERM in the middle of a training: a checkpoint, the right exit code, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

from alignfirst.store import Store
from alignfirst.study.config import preset_files
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import DIGESTED
from alignfirst.study.runner import run

STUDY = """
world: grammar
recipes: [align-distil]
seeds: [3, 4]
beta: 0.1
algorithms: [ppo]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 8}
sft: {hidden: 32, layers: 2, intermediate: 64, steps: 600, batch: 64}
distil: {hidden: 16, intermediate: 32, steps: 50, batch: 64, samples: 512}
align: {updates: 200, samples: 64}
measure: {samples: 256}
"""
LIMIT = 10.0  # seconds from a signal to the end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc"),
]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "signalled.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(preset_files.load(study), out, ExecutionOptions(workers=1))
    return content(out)


def content(out: Path) -> dict[str, Any]:
    return {name: (out / name).read_bytes() for name in DIGESTED} | {"store": Store(out / "store").digests()}


@pytest.fixture
def start(study: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(out: Path, workers: int, every: float = 1e9) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "alignfirst", "run", str(study), "--out", str(out), "--no-report"]
        command += ["--workers", str(workers), "--checkpoint-every", str(every)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def session_of(pid: int) -> set[int]:
    """Live processes of a session: workers have groups of their own, but not sessions."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def checkpoints(out: Path) -> dict[str, int]:
    """Node -> update of its newest checkpoint."""
    found: dict[str, int] = {}
    for path in sorted((out / "store" / "partial").glob("*/update-*.json")):
        found[path.parent.name] = int(path.stem.removeprefix("update-"))
    return found


def until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def training(process: subprocess.Popen[str], workers: int) -> Callable[[], bool]:
    """Whether its workers listen to SIGTERM, as they do while they train."""

    def listens(pid: int) -> bool:
        try:
            caught = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
        except (OSError, IndexError):
            return False
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def condition() -> bool:
        others = session_of(process.pid) - {process.pid}
        return len(others) == workers and all(listens(pid) for pid in others)

    return condition


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [2, 0])
def test_a_training_that_is_interrupted_goes_on_where_it_was(
    number: int, code: int, workers: int, start: Start, tmp_path: Path, whole: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    process = start(out, workers, every=1e9 if workers else 0.5)
    until(training(process, workers) if workers else lambda: checkpoints(out))
    time.sleep(1.0)
    begin = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=LIMIT)
    assert time.monotonic() - begin < LIMIT
    assert process.returncode == code
    assert session_of(process.pid) == set(), "no orphans"
    assert stdout == "" and "Traceback" not in stderr
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    assert len(checkpoints(out)) == max(1, workers), "every training under way has written how far it was"
    assert not list((out / "store").rglob("*.tmp"))
    done = run(preset_files.load(out / "config.yaml"), out, ExecutionOptions(workers=1))
    assert done.status == "complete" and content(out) == whole
    assert not (out / "store" / "partial").exists()


def test_interrupted_twice_it_ends_at_once(start: Start, tmp_path: Path, whole: dict[str, Any]) -> None:
    out = tmp_path / "run"
    process = start(out, 2, every=0.2)
    until(lambda: len(checkpoints(out)) == 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert session_of(process.pid) == set()
    assert checkpoints(out), "those of before"
    assert run(preset_files.load(out / "config.yaml"), out, ExecutionOptions(workers=1)).status == "complete"
    assert content(out) == whole


def test_killed_in_a_training_it_goes_on_from_a_checkpoint(start: Start, tmp_path: Path, whole: dict[str, Any]) -> None:
    """SIGKILL, and then the newer checkpoint is damaged: the one before is used."""
    out = tmp_path / "run"
    process = start(out, 2, every=0.2)
    until(lambda: any(n > 100 for n in checkpoints(out).values()))
    process.kill()
    process.communicate()
    until(lambda: not session_of(process.pid), 5.0)
    key, update = max(checkpoints(out).items(), key=lambda item: item[1])
    path = out / "store" / "partial" / key / f"update-{update:09}.safetensors"
    content_ = bytearray(path.read_bytes())
    content_[len(content_) // 2] ^= 4
    path.write_bytes(content_)
    process = start(out, 2)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0
    assert f"checkpoint update-{update:09} is not as it was written and was moved to" in stderr
    assert content(out) == whole
    assert any(p.name.startswith("update-") for p in (out / "store" / "quarantine").iterdir())


def test_an_interval_that_cannot_be_is_refused(study: Path) -> None:
    command = [sys.executable, "-m", "alignfirst", "run", str(study), "--checkpoint-every", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2 and "checkpoints must be 0 or more seconds apart" in done.stderr
