"""SIGINT and SIGTERM at any moment: the exit code says so, nothing is left behind, the run goes on from there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import children, content, finish, gone, injected, start, until
from ledger import Count

from alignfirst.store import Store
from alignfirst.study.output.run_dir import RunDir

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc"),
    pytest.mark.timeout(1800),
]
Counter = Callable[[str], Count]
POINTS = 20
CODES = {"SIGINT": 130, "SIGTERM": 143}


def left(
    process: subprocess.Popen[str], errors: str, out: Path, whole: dict[str, Any], code: int, workers: set[int]
) -> None:
    """Check what a run that was told to end has left."""
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    gone(workers)
    assert Store(out / "store").damaged() == []
    assert not list(out.rglob("*.tmp"))
    manifest = RunDir(out).manifest()
    assert manifest is not None
    # In its last instants a run has been written out whole: then nothing is left to be interrupted.
    assert manifest["status"] == "interrupted" or content(out) == whole


@pytest.mark.parametrize("name", CODES)
def test_a_signal_at_any_moment(mixture: Any, tmp_path: Path, count: Counter, name: str) -> None:
    """SIGINT ends a run with 130, SIGTERM with 143, within ten seconds and at any moment of its work, also while
    results are being saved; no process is left, and the same command finishes it with the same bytes."""
    rng, counted, done, attempt, stored = random.Random(5), count(f"signals: {name}"), 0, 0, set[str]()
    out = tmp_path / "run0"
    while done < POINTS:
        saving = done % 2 == 0
        env = injected(name, rng.randrange(1, 4), delay=rng.uniform(0.0, 2.0)) if saving else {}
        process = start(mixture.path, out, env=env)
        try:
            until(lambda p=process, o=out: p.poll() is not None or (o / "run.lock.json").exists())
            workers: set[int] = set()
            if saving:
                while process.poll() is None:
                    workers |= children(process.pid)
                    time.sleep(0.01)
                begin = time.monotonic()
            else:
                time.sleep(rng.uniform(0.0, mixture.seconds / 2))
                workers, begin = children(process.pid), time.monotonic()
                process.send_signal(signal.Signals[name])
            _, errors = process.communicate(timeout=60)
            seconds = time.monotonic() - begin
            if process.returncode != 0:
                with counted.trial():
                    left(process, errors, out, mixture.content, CODES[name], workers)
                    counted.most(seconds=seconds)
                    assert seconds < 10
                    assert stored <= Store(out / "store").keys(), "nothing that was stored is lost"
                    stored = Store(out / "store").keys()
                    done += 1
                    continue
        finally:
            process.kill()
            process.communicate()
        assert content(out) == mixture.content, "it was done before the signal came"
        attempt += 1
        assert attempt < 40
        out, stored = tmp_path / f"run{attempt}", set()
    finish(mixture.path, out)
    assert content(out) == mixture.content


def test_a_second_interrupt(mixture: Any, tmp_path: Path, count: Counter) -> None:
    """SIGINT twice ends a run at once; it can still be resumed, and ends with the same bytes."""
    rng, counted, out = random.Random(6), count("signals: SIGINT twice"), tmp_path / "run"
    for _ in range(5):
        process = start(mixture.path, out)
        until(lambda p=process: p.poll() is not None or children(p.pid))
        time.sleep(rng.uniform(0.0, 1.0))
        if process.poll() is None:
            workers, begin = children(process.pid), time.monotonic()
            process.send_signal(signal.SIGINT)
            time.sleep(rng.uniform(0.0, 0.1))
            process.send_signal(signal.SIGINT)
        with counted.trial():
            process.communicate(timeout=60)
            seconds = time.monotonic() - begin
            counted.most(seconds=seconds)
            assert process.returncode in (130, -signal.SIGINT)
            assert seconds < 5
            gone(workers)
            assert Store(out / "store").damaged() == []
    finish(mixture.path, out)
    assert content(out) == mixture.content
