"""`smollm2` with tiny models of SmolLM2's architecture and its tokenizer, in two accelerate processes (gloo): both
orders, all its algorithms. Compared with the same study in one process. Three minutes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from alignfirst.store import Store
from alignfirst.study import presets, runner
from alignfirst.study.plan import plan_study
from alignfirst.study.run_dir import CONFIG, RunDir, config_text
from alignfirst.study.worker import load_world
from chain import tiny
from common import ROOT, RUNS, conclude, fresh, rows

ALGORITHMS = {"ppo", "dpo-offline", "dpo-online", "rloo", "grpo"}
TOLERANCE = 1e-5  # of weights: sums of gradients in another order, in a few Adam steps of at most 5e-4

sets = tiny(RUNS / "chain-star")
pair, alone = fresh(RUNS / "smollm2-pair"), fresh(RUNS / "smollm2-alone")
config = presets.load("smollm2", sets)
plan = plan_study(config, load_world(config.world))
pair.mkdir()
RunDir(pair).write(CONFIG, config_text(config))  # whose directory it is: the runner will write the records there
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
# As `accelerate launch` and torchrun start them
path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
shared = {
    "PYTHONPATH": path,
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": port,
    "OMP_NUM_THREADS": "1",
}
command = [sys.executable, str(Path(__file__).with_name("chain_process.py")), "smollm2", json.dumps(sets), str(pair)]
processes = [
    subprocess.Popen(command, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
]
codes = [process.wait() for process in processes]
failures = [f"the processes exited {codes}"] if any(codes) else []

result = runner.run(config, pair, 0)  # writes the records of what is stored
print(f"two processes: {result.status}, {dict(result.counts)}")
if result.counts["computed"]:
    failures.append(f"{result.counts['computed']} nodes were left undone")
found = rows(pair)
finals = Counter((row["recipe"], row["algorithm"]) for row in found if row["final"] and row["status"] == "ok")
print(f"final models: {dict(finals)}")
expected = {(r, a) for r in ("align-distil", "distil-align", "align-only") for a in ALGORITHMS}
if finals.keys() != expected | {("distil-only", None)}:
    failures.append(f"recipes and algorithms differ: {set(finals) ^ (expected | {('distil-only', None)})}")
if any(row["status"] != "ok" for row in found):
    failures.append("not every stage is ok")

runner.run(config, alone, 0)
stores = Store(pair / "store"), Store(alone / "store")
worst: dict[str, float] = {}
for key, node in plan.nodes.items():
    if node.kind in ("target", "sft", "distil", "align"):
        a, b = (store.get(key) for store in stores)
        gap = max(float(np.abs(a.arrays[n] - b.arrays[n]).max()) for n in a.arrays)
        worst[node.kind] = max(worst.get(node.kind, 0.0), gap)
        if (a.meta["tokens"], a.meta["samples"]) != (b.meta["tokens"], b.meta["samples"]):
            failures.append(f"{node.kind}: two processes counted other tokens than one")
print(f"largest difference of a weight from one process: {worst}")
if max(worst.values()) > TOLERANCE:
    failures.append(f"weights differ by more than {TOLERANCE}")
conclude(failures)
