"""`smollm2` with tiny models of SmolLM2's architecture and its tokenizer, in two accelerate processes (gloo): both
orders, all its algorithms. Compared with the same study in one process. Three minutes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from alignfirst.store import Store
from alignfirst.study import runner
from alignfirst.study.config import preset_files
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study
from chain import tiny
from common import RUNS, cli, conclude, fresh, rows

ALGORITHMS = {"ppo", "dpo-offline", "dpo-online", "rloo", "grpo"}
TOLERANCE = 1e-5  # of weights: sums of gradients in another order, in a few Adam steps of at most 5e-4

sets = tiny(RUNS / "chain-star")
pair, alone = fresh(RUNS / "smollm2-pair"), fresh(RUNS / "smollm2-alone")
config = preset_files.load("smollm2", sets)
plan = plan_study(config, load_world(config.world))
words = [word for key, value in sets.items() for word in ("--set", f"{key}={json.dumps(value)}")]
process = cli("run", "smollm2", *words, "--out", pair, "--processes", "2", "--no-report")
failures = [f"two processes exited {process.returncode}: {process.stderr[-2000:]}"] if process.returncode else []

counts = json.loads((pair / "manifest.json").read_text())["counts"]
print(f"two processes: {counts}")
if counts["computed"] != len(plan.nodes) or counts["failed"]:
    failures.append(f"{len(plan.nodes)} nodes were planned: {counts}")
found = rows(pair)
finals = Counter((row["recipe"], row["algorithm"]) for row in found if row["final"] and row["status"] == "ok")
print(f"final models: {dict(finals)}")
expected = {(r, a) for r in ("align-distil", "distil-align", "align-only") for a in ALGORITHMS}
if finals.keys() != expected | {("distil-only", None)}:
    failures.append(f"recipes and algorithms differ: {set(finals) ^ (expected | {('distil-only', None)})}")
if any(row["status"] != "ok" for row in found):
    failures.append("not every stage is ok")

runner.run(config, alone, ExecutionOptions(workers=0))
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
