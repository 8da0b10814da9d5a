"""A study in two processes that `accelerate launch` started: within a stated tolerance of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "faults")]

import pytest

for _name in ("torch", "transformers", "accelerate", "tokenizers"):
    pytest.importorskip(_name)

import numpy as np
from fault_runs import children, command, gone, until
from own_models import pairs, study, teacher, write

from alignfirst import process_environment
from alignfirst.store import Store
from alignfirst.study.execution import launcher
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.output.run_dir import config_text
from alignfirst.study.plan.planner import plan_study
from alignfirst.study.runner import run

TOLERANCE = 1e-5  # of weights: sums of four gradients in another order, in a few Adam steps of at most 1e-3
PROFILE = Path(__file__).parents[2] / "examples" / "fsdp.yaml"
SETTINGS: Mapping[str, Any] = {
    "name": "pair", "seeds": 1, "algorithms": ["dpo-offline", "ipo"], "beta": [0.1],
    "sft.steps": 4, "sft.batch": 16, "sft.chunk": 2, "sft.learning_rate": 1e-3,
    "distil.batch": 16, "distil.chunk": 3, "distil.learning_rate": 1e-3, "distil.samples": 32,
    "align.samples": 16, "align.chunk": 2,
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc"),
]


def a_study(folder: Path, **more: Any) -> tuple[Any, Path]:
    config = study(teacher(folder / "teacher"), write(folder / "pairs.jsonl", pairs()), **{**SETTINGS, **more})
    path = folder / "study.yaml"
    path.write_text(config_text(config))
    return config, path


def start(path: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", path, "--out", out, "--no-report", "--processes", 2, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    ("loss", "more"), [("sequence", []), ("forward-kl", []), ("reverse-kl", []), ("sequence", ["--shard"])]
)
def test_two_processes_train_what_one_does(tmp_path: Path, loss: str, more: list[str]) -> None:
    recipes = ["align-distil", "distil-align-rehearsed"]
    config, path = a_study(tmp_path, **{"distil.loss": loss, "recipes": recipes})
    process = start(path, tmp_path / "two", *more)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    run(config, tmp_path / "one", ExecutionOptions(workers=0))
    one, two = Store(tmp_path / "one" / "store"), Store(tmp_path / "two" / "store")
    assert one.keys() == two.keys()
    nodes = plan_study(config, load_world("hf")).nodes
    for key, node in nodes.items():
        a, b = one.get(key), two.get(key)
        for name in a.arrays:
            np.testing.assert_allclose(b.arrays[name], a.arrays[name], rtol=0, atol=TOLERANCE, err_msg=node.kind)
        if node.kind in ("sft", "distil", "align"):
            assert [b.meta[n] for n in ("tokens", "samples", "updates")] == [
                a.meta[n] for n in ("tokens", "samples", "updates")
            ]
            assert b.meta["flops"] == pytest.approx(a.meta["flops"])
    events = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    assert {e["worker"] for e in events if e["event"] == "task" and e["kind"] == "measure"} == {0, 1}, "dealt out"
    again = start(path, tmp_path / "two", "--json", *more)
    told, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert json.loads(told)["nothing_to_do"]


TOLD = """
import os
from pathlib import Path
from alignfirst import process_environment
from alignfirst.lm.io import numpy_api
process_environment.check_profile()
team = numpy_api.team()
assert team.broadcast(team.rank) == 0 and team.sum(team.rank + 1.0) == 3 and team.gather_objects(team.rank) == [0, 1]
Path(f"team-{team.rank}").write_text(f"{team.every_pass} {team.size}")
import torch
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("option", "profile", "sharded"),
    [("", [], False), ("1", [], True), ("", ["--config_file", str(PROFILE)], True)],
)
def test_the_option_or_the_shipped_profile_shards(
    tmp_path: Path, option: str, profile: list[str], sharded: bool
) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    plain = [] if profile else launcher.FLAGS
    port = ["--main_process_port", str(launcher.free_port())]
    subprocess.run(
        [sys.executable, "-c", launcher.BOOT, *profile, *plain, "--num_processes", "2", *port, "told.py"],
        check=True,
        timeout=240,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", process_environment.SHARD: option},
    )
    assert [(tmp_path / f"team-{rank}").read_text() for rank in (0, 1)] == [f"{sharded} 2"] * 2


@pytest.mark.parametrize(
    ("number", "code", "more"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, []), (signal.SIGKILL, -9, []), (signal.SIGTERM, 143, ["--shard"])],
)
def test_interrupted_all_leave_and_the_same_command_goes_on(
    tmp_path: Path, number: int, code: int, more: list[str]
) -> None:
    config, path = a_study(tmp_path, **{"align.updates": 60})
    process = start(path, tmp_path / "run", "--checkpoint-every", 0, *more)
    store = tmp_path / "run" / "store"
    until(lambda: len(Store(store).keys()) > 4 and list((store / "partial").glob("*/update-*.json")), 120)
    started = descendants(process.pid)
    assert len(started) >= 3
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)  # 10 s on a quiet machine: see launch.GRACE
    assert process.returncode == code, errors
    gone(started)
    process = start(path, tmp_path / "run", *more)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    run(config, tmp_path / "one", ExecutionOptions(workers=0))
    one, two = Store(tmp_path / "one" / "store"), Store(store)
    for key in one.keys():  # noqa: SIM118
        for name, array in one.get(key).arrays.items():
            np.testing.assert_allclose(two.get(key).arrays[name], array, rtol=0, atol=10 * TOLERANCE)


def descendants(pid: int) -> set[int]:
    found, new = set[int](), {pid}
    while new := {child for parent in new for child in children(parent)} - found:
        found |= new
    return found
