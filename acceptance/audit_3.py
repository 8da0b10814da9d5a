"""`--gate` stops a shell script, and 100,000 rows of log-probabilities take less than 5 s without torch."""

from __future__ import annotations

import json
import os
import random
import time

from common import CLI, RUNS, conclude, fresh, shell

ROWS, BAR = 100_000, 5.0
folder = fresh(RUNS / "audit")
folder.mkdir(parents=True)
(folder / "torch.py").write_text("raise ImportError('the audit must not need this')\n")
rng = random.Random(0)
with open(folder / "rows.jsonl", "w") as f:
    for i in range(ROWS):
        hit = rng.random() < (0.02 if i % 2 else 0.5)
        row = {"kind": "sample", "source": "reference" if i % 2 else "teacher", "reward": float(hit), "in_target": hit}
        f.write(json.dumps(row | {"logp_reference": -3.9 if hit else -0.02, "logp_teacher": -0.69}) + "\n")
command = f"{' '.join(CLI)} audit --log-probs rows.jsonl --algorithm reinforce --rollouts 100000"
environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
failures = []
for beta, launched in ((0.1, True), (2.0, False)):
    shell(f"{command} --beta {beta} --gate > out-{beta}.txt && touch launched-{beta}", folder, **environment)
    if (folder / f"launched-{beta}").exists() != launched:
        failures.append(f"beta {beta}: the script {'stopped' if launched else 'went on'}")
begin = time.perf_counter()
code = shell(f"{command} --beta 0.1 > out.txt", folder, **environment)
took = time.perf_counter() - begin
print(f"{ROWS:,} rows: {took:.1f} s (bar {BAR:g} s)")
if code or took >= BAR:
    failures.append(f"{ROWS:,} rows took {took:.1f} s, exit code {code}")
conclude(failures)
