"""Studies on a Ray cluster that loses a node, or its driver: the records are those of a run on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import GRAMMAR, alive, children, command, content, gone, until
from ledger import Count
from toy_world import ToyConfig, ToyWorld

from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.runner import run

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {"seeds": 4, "algorithms": ["ppo", "dpo-offline"], "beta": [0.1, 0.2, 0.3]}
BATCH = max(ToyWorld().batch_size(type("Node", (), {"kind": kind})) for kind in ("sft", "align", "measure"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs alignfirst[ray]"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc"),
    pytest.mark.timeout(600),
]
lm = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs alignfirst[lm]")
PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
    "OMP_NUM_THREADS": "1",
}


class TwoNodes:
    """A cluster of two nodes with one core each."""

    def __init__(self, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_cluster.py")],
            env=os.environ | PATIENT | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._said("address ")

    def lose_one(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        self._said("killed")

    def _said(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line.removeprefix(start).strip()
        raise AssertionError("the cluster ended")


@contextmanager
def two_nodes(**env: str) -> Iterator[TwoNodes]:
    cluster = TwoNodes(**env)
    try:
        yield cluster
    finally:
        cluster.process.communicate(timeout=60)


@contextmanager
def driver(arguments: list[str], **env: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        arguments, env=os.environ | PATIENT | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def toy(out: Path) -> list[str]:
    return [sys.executable, str(HERE / "driver.py"), str(out), "ray", json.dumps(SETTINGS)]


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    results, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return results, errors


def tasks_done(out: Path) -> int:
    path = out / "timings.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def redone(log: Path) -> int:
    return sum(n - 1 for n in Counter(line.split()[1] for line in log.read_text().splitlines()).values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The toy study on this machine, uninterrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    return content(out)


def test_a_lost_node_costs_the_task_it_had(
    tmp_path: Path, whole: dict[str, Any], count: Callable[[str], Count]
) -> None:
    """One of two Ray nodes killed midway: records and store equal a local run, and at most its one task is redone."""
    tried, out, log = count("ray: node lost, toy"), tmp_path / "run", tmp_path / "log"
    log.write_text("")
    with tried.trial(), two_nodes(TOY_LOG=str(log), TOY_SLEEP="0.1") as cluster:
        with driver(toy(out), RAY_ADDRESS=cluster.address) as process:
            until(lambda: tasks_done(out) >= 4, 120)
            cluster.lose_one()
            assert process.poll() is None, "it was killed midway"
            finished(process)
        assert content(out) == whole
        assert redone(log) <= BATCH
        tried.most(nodes_redone=redone(log))


def test_a_killed_driver_goes_on(tmp_path: Path, whole: dict[str, Any], count: Callable[[str], Count]) -> None:
    """The driver of a Ray study SIGKILLed: run again it equals a local run, and at most its two tasks are redone."""
    tried, out, log = count("ray: driver killed, toy"), tmp_path / "run", tmp_path / "log"
    log.write_text("")
    with tried.trial(), two_nodes(TOY_LOG=str(log), TOY_SLEEP="0.1") as cluster:
        with driver(toy(out), RAY_ADDRESS=cluster.address) as process:
            until(lambda: tasks_done(out) >= 4, 120)
            assert process.poll() is None, "it was killed midway"
            process.kill()
        with driver(toy(out), RAY_ADDRESS=cluster.address) as process:
            finished(process)
        assert content(out) == whole
        assert redone(log) <= 2 * BATCH
        tried.most(nodes_redone=redone(log))


@pytest.mark.parametrize("name", ["mixture", pytest.param("grammar", marks=lm)])
def test_a_lost_node_changes_no_byte(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, count: Callable[[str], Count]
) -> None:
    """One of two Ray nodes killed midway: records and store of 200 cells equal those of a local run."""
    tried, study, out = count(f"ray: node lost, {name}"), request.getfixturevalue(name), tmp_path / "run"
    arguments = command("run", study.path, "--out", out, "--no-report", "--engine", "ray", "--json")
    with tried.trial(), two_nodes() as cluster:
        with driver([*arguments, "--ray-address", cluster.address]) as process:
            until(lambda: tasks_done(out) >= 4, 240)
            cluster.lose_one()
            assert process.poll() is None, "it was killed midway"
            results, errors = finished(process)
        assert content(out) == study.content
        assert json.loads(results)["status"] == "complete", "Ray says nothing among the results"
        assert "note: Ray: " in errors and "state-dump" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_cluster_of_its_own_goes_with_the_run(tmp_path: Path, whole: dict[str, Any], number: int, code: int) -> None:
    out = tmp_path / "run"
    with driver(toy(out), TOY_SLEEP="0.3") as process:
        until(lambda: tasks_done(out) >= 2, 120)
        started = descendants(process.pid)
        assert started
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    gone(started, 120.0 if number == signal.SIGKILL else 20.0)  # two agents of Ray look for their head for a minute
    result = run(ToyConfig(**SETTINGS), out, ExecutionOptions(workers=0))
    assert result.counts["reused"] > 0
    assert content(out) == whole


@lm
def test_interrupted_a_training_on_a_node_writes_down_how_far_it_is(
    tmp_path: Path, count: Callable[[str], Count]
) -> None:
    """A long training as a Ray task, interrupted: it writes a checkpoint, and goes on from it to the same bytes."""
    tried, study = count("ray: training interrupted"), tmp_path / "study.yaml"
    study.write_text(GRAMMAR.replace("seeds: 25", "seeds: 1").replace("updates: 4", "updates: 400"))
    arguments = command("run", study, "--no-report", "--set", "beta=0.1", "--set", "algorithms=grpo")
    ray = [*arguments, "--out", str(tmp_path / "ray"), "--engine", "ray", "--checkpoint-every", "10000"]
    with tried.trial():
        with driver(ray) as process:
            until(lambda: tasks_done(tmp_path / "ray") >= 2, 120)
            time.sleep(1)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        kept = [path.name for path in (tmp_path / "ray" / "store" / "partial").glob("*/update-*.json")]
        assert kept and all(name > "update-000000000" for name in kept)
        with driver(ray) as process:
            finished(process)
        with driver([*arguments, "--out", str(tmp_path / "here")]) as process:
            finished(process)
        assert content(tmp_path / "ray") == content(tmp_path / "here")


def descendants(pid: int) -> set[int]:
    """Live processes below one; Ray's daemons and workers are children of children."""
    found, new = set[int](), {pid}
    while new := {child for parent in new for child in children(parent)} - found:
        found |= new
    return {pid for pid in found if alive(pid)}


def test_no_cluster_at_the_address_is_said_so(tmp_path: Path) -> None:
    arguments = command("run", "mog-quick", "--out", tmp_path / "run", "--engine", "ray", "--ray-address", "[::1]:1")
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | PATIENT, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "a Ray cluster must answer" in done.stderr
