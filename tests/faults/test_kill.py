"""Runs that are killed, interrupted, or meet each other: nothing is lost, nothing is left behind, nothing differs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import children, content, gone, until
from toy_world import ToyConfig

from alignfirst.store import Store
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import RunDir
from alignfirst.study.runner import run

DRIVER = Path(__file__).parent / "driver.py"
SETTINGS: dict[str, Any] = {"seeds": 3, "algorithms": ["ppo", "dpo-offline"], "beta": [0.1, 0.2, 0.3]}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    return out


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(out: Path, workers: int = 2, **env: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, str(DRIVER), str(out), str(workers), json.dumps(SETTINGS)],
                env=os.environ | env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def kill_somewhere(process: subprocess.Popen[str], rng: random.Random) -> bool:
    """Kill a run after some progress, or while it starts, or while it ends. False where it ended by itself."""
    assert process.stdout is not None
    if rng.random() < 0.3:
        time.sleep(rng.uniform(0.0, 0.5))
    else:
        for _ in range(rng.randrange(1, 9)):
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.03))
    if process.poll() is not None:
        return False
    workers = children(process.pid)
    process.kill()
    process.wait()
    gone(workers, 4.0)
    return True


def test_killed_at_random_moments_then_resumed_equals_uninterrupted(whole: Path, tmp_path: Path, start: Start) -> None:
    """Ten kills in all; a run that was faster than its killer is finished, compared, and followed by a fresh one."""
    rng, kills, attempt = random.Random(20250923), 0, 0
    while kills < 10:
        attempt += 1
        assert attempt < 30, "no run lives long enough to be killed: this tests nothing"
        out = tmp_path / f"run{attempt}"
        while kills < 10 and kill_somewhere(start(out), rng):
            kills += 1
            assert Store(out / "store").damaged() == [], "no file is ever half there"
        assert run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0)).status == "complete"
        assert content(out) == content(whole)
        assert not list(out.rglob("*.tmp"))


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file exists, runs started with it stand still after sft."""
    path = tmp_path / "hold"
    path.write_text("")
    return path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_keeps_what_is_stored_and_says_so(
    whole: Path, tmp_path: Path, start: Start, hold: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"
    process = start(out, TOY_HOLD=str(hold))
    until(lambda: Store(out / "store").keys())
    workers = children(process.pid)
    assert workers
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in errors, "neither from the parent nor from a worker"
    gone(workers, 4.0)
    manifest = RunDir(out).manifest()
    assert manifest is not None
    assert manifest["status"] == "interrupted"
    stored = Store(out / "store").keys()
    assert 0 < manifest["counts"]["computed"] == len(stored) < manifest["counts"]["nodes"]
    result = run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    assert result.counts["reused"] == len(stored)
    assert content(out) == content(whole)


def test_the_second_of_two_leaves_at_once_and_the_first_does_not_notice(
    whole: Path, tmp_path: Path, start: Start, hold: Path
) -> None:
    out = tmp_path / "run"
    first = start(out, TOY_HOLD=str(hold))
    until(lambda: Store(out / "store").keys())
    second = start(out)
    _, errors = second.communicate(timeout=20)
    assert first.poll() is None, "the first still works: the second did not wait for it"
    assert second.returncode == 1
    assert f"in use by process {first.pid} on " in errors
    hold.unlink()
    assert first.wait(60) == 0
    assert content(out) == content(whole)


def test_workers_killed_from_outside_are_replaced(whole: Path, tmp_path: Path, start: Start, hold: Path) -> None:
    out = tmp_path / "run"
    process = start(out, TOY_HOLD=str(hold))
    until(lambda: Store(out / "store").keys())
    for worker in until(lambda: w if len(w := children(process.pid)) == 2 else None):
        os.kill(worker, signal.SIGKILL)
    hold.unlink()
    assert process.wait(60) == 0
    assert content(out) == content(whole)


def test_workers_do_not_outlive_a_parent_even_in_the_middle_of_a_node(tmp_path: Path, start: Start, hold: Path) -> None:
    process = start(tmp_path / "run", TOY_HOLD=str(hold))
    workers = until(lambda: w if len(w := children(process.pid)) == 2 else None)
    until(lambda: Store(tmp_path / "run" / "store").keys())
    process.kill()
    gone(workers, 4.0)
