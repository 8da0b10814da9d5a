"""SIGKILL at any moment: the store and the records of the resumed run equal those of the uninterrupted one."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import SIGKILLED, children, content, finish, gone, injected, killed, start, until
from ledger import Count

from alignfirst.store import Store

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc"),
    pytest.mark.timeout(1800),
]
lm = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs alignfirst[lm]")
Counter = Callable[[str], Count]


def tasks(out: Path) -> list[dict[str, Any]]:
    path = out / "timings.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def longest_task(done: list[dict[str, Any]], begins: list[int]) -> float:
    """Seconds of CPU that a kill can cost a worker: its longest task. Not its first, which imports libraries; `begins`
    are the numbers of tasks that were done when the workers were started."""
    longest, seen = 0.0, set[int]()
    for number, task in enumerate(done):
        if number in begins:
            seen.clear()
        if task["worker"] in seen:
            longest = max(longest, task["cpu_seconds"])
        seen.add(task["worker"])
    return longest


def kill_at_random(study: Any, folder: Path, kills: int, count: Count) -> None:
    """Kill and resume until there were so many kills; a run that ends first is compared, and another one begun. Most
    kills come in the first quarter of the time of a whole run after work has gone on, so that runs are killed several
    times over, at any of their stages; the others while it starts."""
    rng, done, attempt = random.Random(7), 0, 0
    while done < kills:
        attempt += 1
        out, stored, begins = folder / f"run{attempt}", set[str](), [0]
        while True:
            process = start(study.path, out)
            wait = rng.uniform(0.2, study.seconds / 4) if done < kills else 280.0
            if rng.random() < 0.8 and done < kills:
                until(lambda p=process, o=out, n=begins[-1]: p.poll() is not None or len(tasks(o)) > n)
            try:
                _, errors = process.communicate(timeout=wait)
                assert process.returncode == 0, errors
                break
            except Exception as e:
                if type(e).__name__ != "TimeoutExpired" or done >= kills:
                    raise
            with count.trial():
                killed(process)
                done += 1
                store = Store(out / "store")
                assert store.damaged() == [], "no file is ever half there"
                assert stored <= store.keys(), "nothing that was stored is lost"
                stored = store.keys()
                begins.append(len(tasks(out)))
        if len(stored) < study.nodes:  # else it may have been killed after its last word
            assert json.loads((out / "manifest.json").read_text())["counts"]["reused"] == len(stored)
        assert content(out) == study.content
        assert not list(out.rglob("*.tmp"))
        assert sum(task["nodes"] for task in tasks(out)) <= study.nodes, "nothing that was stored is computed again"
        count.most(cpu_seconds_redone=longest_task(tasks(out), begins))
    assert count.figures["cpu_seconds_redone"] <= 2.0


@pytest.mark.slow
def test_killed_at_random_moments(mixture: Any, tmp_path: Path, count: Counter) -> None:
    """A mixture study of 200 cells that is killed at random moments and resumed ends with the same bytes as one that
    was left alone; at most one task of at most two seconds a worker is computed again."""
    kill_at_random(mixture, tmp_path, 50, count("kill: mixture, random moments"))


@pytest.mark.slow
@lm
def test_a_grammar_killed_at_random_moments(grammar: Any, tmp_path: Path, count: Counter) -> None:
    """A grammar study of 200 cells that is killed at random moments and resumed ends with the same bytes as one that
    was left alone; at most one task of at most two seconds a worker is computed again."""
    kill_at_random(grammar, tmp_path, 50, count("kill: grammar, random moments"))


def kill_while_saving(study: Any, out: Path, kills: int, count: Count) -> None:
    """Each start dies at the n-th shard that one worker saves: before, in the middle of, or at the end of writing."""
    rng, half_written = random.Random(11), 0
    moments: list[dict[str, Any]] = [{"on": "open"}, {"on": "rename"}, {"on": "open", "delay": 1}]
    for kill in range(kills):
        moment = dict(moments[kill % 3])
        if "delay" in moment:
            moment["delay"] = rng.uniform(0.05, 1.0)
        process = start(study.path, out, env=injected("SIGKILL", rng.randrange(1, 3), **moment))
        workers: set[int] = set()
        while process.poll() is None:
            workers |= children(process.pid)
            time.sleep(0.01)
        process.communicate()
        with count.trial():
            assert process.returncode == SIGKILLED, "it ended before the worker saved: this tests nothing"
            gone(workers)
            assert Store(out / "store").damaged() == []
        half_written += bool(list((out / "store").glob("*.tmp")))
    finish(study.path, out)
    assert content(out) == study.content
    assert not list(out.rglob("*.tmp"))
    count.most(died_with_a_file_half_written=half_written)
    assert half_written, "no kill met a file that was being written: this tests nothing"


@pytest.mark.slow
def test_killed_while_saving(mixture: Any, tmp_path: Path, count: Counter) -> None:
    """A kill inside the writing of results leaves no half file, and the resumed run ends with the same bytes."""
    kill_while_saving(mixture, tmp_path / "run", 10, count("kill: mixture, while saving"))


@pytest.mark.slow
@lm
def test_a_grammar_killed_while_saving_weights(grammar: Any, tmp_path: Path, count: Counter) -> None:
    """A kill inside the writing of weights leaves no half file, and the resumed run ends with the same bytes."""
    kill_while_saving(grammar, tmp_path / "run", 10, count("kill: grammar, while saving weights"))
