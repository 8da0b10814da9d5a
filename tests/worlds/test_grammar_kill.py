"""SIGKILL in every stage of a grammar study: the resumed run equals the uninterrupted one, byte for byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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
seeds: [3]
beta: 0.1
algorithms: [grpo, dpo-offline]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 8}
sft: {hidden: 32, layers: 2, intermediate: 64, steps: 150, batch: 64}
distil: {hidden: 16, intermediate: 32, steps: 150, batch: 64, samples: 1024}
align: {updates: 40, samples: 64}
preferences: {pairs: 256}
measure: {samples: 256}
"""
STAGES = 4  # kinds of nodes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "killed.yaml"
    path.write_text(STUDY)
    return path


def content(out: Path) -> dict[str, object]:
    return {name: (out / name).read_bytes() for name in DIGESTED} | {"store": Store(out / "store").digests()}


def started(study: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "alignfirst",
        "run",
        str(study),
        "--out",
        str(out),
        "--workers",
        "1",
        "--no-report",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)


def tasks(out: Path) -> int:
    path = out / "timings.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_killed_in_every_stage_then_resumed_equals_uninterrupted(study: Path, tmp_path: Path) -> None:
    out, rng, kills, stages = tmp_path / "run", random.Random(3), 0, set()
    store = Store(out / "store")
    while True:
        process, before = started(study, out), tasks(out)
        while process.poll() is None and tasks(out) == before:
            time.sleep(0.005)
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 1.0)]))  # while saving, or in what comes next
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        stages.add(Path(out / "timings.jsonl").read_text().splitlines()[-1].split('"')[3])
        assert store.damaged() == []
    assert kills >= STAGES and len(stages) >= STAGES - 1, (kills, stages)
    whole = tmp_path / "whole"
    assert run(preset_files.load(study), whole, ExecutionOptions(workers=0)).status == "complete"
    assert content(out) == content(whole)
