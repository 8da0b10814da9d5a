"""Two accelerate processes (gloo) train the same step as one: largest difference of weights and curves, by algorithm.

Gradients differ in the order of four float32 sums; four updates of 1e-2 keep weights within 1e-5. A minute.
"""

from __future__ import annotations

import json
import socket
import sys

import numpy as np

from common import ROOT, RUNS, conclude, fresh

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import test_align_processes as processes

WEIGHTS = 1e-5
folder = fresh(RUNS / "two-processes")
folder.mkdir(parents=True)
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = str(s.getsockname()[1])
pair = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
started = [processes.start(folder, "alone")]
started += [processes.start(folder, "pair", RANK=str(r), LOCAL_RANK=str(r), **pair) for r in range(2)]
codes = [p.wait(timeout=600) for p in started]
if any(codes):
    conclude([f"exit codes {codes}"])
alone, first, second = (json.loads((folder / f"{n}.json").read_text()) for n in ("alone-0", "pair-0", "pair-1"))
failures = []
for name, more in processes.CASES:
    key = name + json.dumps(more)
    one, two = np.array(alone[key][0]), np.array(first[key][0])
    apart = float(np.abs(one - two).max())
    curves = max(
        abs(a - b) / max(1.0, abs(a))
        for curve, values in alone[key][1].items()
        for a, b in zip(values, first[key][1][curve], strict=True)
        if a is not None and b is not None
    )
    equal = first[key][0] == second[key][0]
    counts = alone[key][2:] == first[key][2:]
    told = f"weights within {apart:.1e} (bar {WEIGHTS:.0e}), curves within {curves:.1e}, counts equal: {counts}"
    print(f"{name:12s} {len(one)} {told}, both processes the same model: {equal}")
    if apart > WEIGHTS or curves > 1e-4 or not (equal and counts):
        failures.append(f"{key}: {told}, equal {equal}")
print(f"a reward that fails in one process: {first['failure']}")
if first["failure"] != second["failure"] or "row 1 at update 0" not in first["failure"]:
    failures.append("a failure of one process did not fail both")
conclude(failures)
