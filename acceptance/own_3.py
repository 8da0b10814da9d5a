"""Own models (a tiny teacher, so that it takes four minutes) on a Ray cluster of two nodes of which one is killed
midway: records equal to those of this machine. In two processes of `accelerate launch`: weights within 1e-5 of one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from alignfirst.store import Store
from alignfirst.study.execution.worker import load_world
from alignfirst.study.output.run_dir import DIGESTED, config_text
from alignfirst.study.plan.planner import plan_study
from common import CLI, ROOT, RUNS, cli, conclude, fresh, store_digests

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import own_models

TOLERANCE = 1e-5  # of weights: sums of gradients in another order, in a few Adam steps of at most 1e-3
LEAST = 5  # tasks that are done when the node is killed
SETTINGS = {
    "name": "own-scale", "seeds": 3, "algorithms": ["dpo-offline", "ipo"], "beta": [0.05, 0.1],
    "sft.steps": 20, "sft.batch": 16, "sft.chunk": 2, "sft.learning_rate": 1e-3,
    "distil.steps": 20, "distil.batch": 16, "distil.chunk": 4, "distil.samples": 32, "distil.learning_rate": 1e-3,
    "align.updates": 20, "align.samples": 16, "align.chunk": 2,
}  # fmt: skip

base = fresh(RUNS / "own-scale")
base.mkdir(parents=True)
rows = own_models.write(base / "pairs.jsonl", own_models.pairs())
config = own_models.study(own_models.teacher(base / "teacher"), rows, **SETTINGS)
study, here, ray, two = base / "study.yaml", base / "here", base / "ray", base / "two"
study.write_text(config_text(config))
os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
failures: list[str] = []


def run(out: Path, *more: object) -> None:
    begin = time.monotonic()
    done = cli("run", study, "--out", out, "--no-report", *more)
    print(f"{out.name}: exit code {done.returncode} after {time.monotonic() - begin:.0f} s", flush=True)
    if done.returncode:
        failures.append(f"{out.name}: {done.stderr[-1500:]}")


def on_two_nodes() -> None:
    """The study on a cluster whose second node is killed once some tasks are done."""
    cluster = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "faults" / "ray_cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert cluster.stdin is not None and cluster.stdout is not None
    address = next(line.split()[1] for line in cluster.stdout if line.startswith("address "))
    arguments = ["run", study, "--out", ray, "--no-report", "--engine", "ray", "--ray-address", address]
    driver = subprocess.Popen([*CLI, *map(str, arguments)])
    timings = ray / "timings.jsonl"
    while driver.poll() is None and not (timings.exists() and len(timings.read_text().splitlines()) >= LEAST):
        time.sleep(0.1)
    cluster.stdin.write("kill\n")
    cluster.stdin.flush()
    next(line for line in cluster.stdout if line.startswith("killed"))
    done = len(timings.read_text().splitlines())
    if driver.poll() is not None:
        failures.append("the run was over before the node was killed")
    code = driver.wait()
    print(f"two-node Ray: one node killed after {done} tasks, exit code {code}", flush=True)
    cluster.communicate()


run(here)
on_two_nodes()
differ = [name for name in DIGESTED if (here / name).read_bytes() != (ray / name).read_bytes()]
same = store_digests(here) == store_digests(ray)
print(f"files that differ from the local run: {differ or 'none'}; stores equal: {same}")
if differ or not same:
    failures.append("the run that lost a node differs from the local one")

run(two, "--processes", 2)
worst: dict[str, float] = {}
one, pair = Store(here / "store"), Store(two / "store")
for key, node in plan_study(config, load_world("hf")).nodes.items():
    if node.kind in ("sft", "distil", "align"):
        a, b = one.get(key), pair.get(key)
        gap = max(float(np.abs(a.arrays[n] - b.arrays[n]).max()) for n in a.arrays)
        worst[node.kind] = max(worst.get(node.kind, 0.0), gap)
        if any(a.meta[n] != b.meta[n] for n in ("tokens", "samples", "updates")):
            failures.append(f"{node.kind}: two processes counted otherwise than one")
print(f"two accelerate processes: largest difference of a weight from one process: {worst}")
if max(worst.values()) > TOLERANCE:
    failures.append(f"weights differ by more than {TOLERANCE}")
conclude(failures)
