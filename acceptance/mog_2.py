"""Preset mog: at beta 0.1 and 0.15 align-distil beats distil-align in reward and target precision, interval above 0.

For reinforce, rloo, grpo, ppo, dpo-offline and dpo-online; all else is printed as it falls. A minute where nothing is
stored yet.
"""

from __future__ import annotations

import json

from common import conclude, finished_run

MUST = ("reinforce", "rloo", "grpo", "ppo", "dpo-offline", "dpo-online")
run = finished_run("mog")
pairs = json.loads((run / "statistics.json").read_text())["pairs"]
failures = []
print(f"{'algorithm':14s} {'beta':>5s} {'metric':18s} {'difference':>10s} {'interval':>20s} {'won':>5s}")
for p in pairs:
    if p["metric"] not in ("reward", "target_precision", "overall_precision"):
        continue
    low, high, beta = p["low"], p["high"], p["beta"]
    shown = "" if low is None else f"[{low:8.3f}, {high:8.3f}]"
    must = p["algorithm"] in MUST and beta in (0.1, 0.15) and p["metric"] != "overall_precision"
    mark = "" if low is None else "+" if low > 0 else "-" if high < 0 else "0"
    name = f"{p['algorithm']:14s} {beta!s:>5s} {p['metric']:18s}"
    print(f"{name} {p['mean']:10.3f} {shown:>20s} {p['share_won']:5.2f} {mark}")
    if must and not (low is not None and low > 0):
        failures.append(f"{p['algorithm']} at beta {beta}: {p['metric']} {p['mean']:.3f} {shown}")
checked = {(p["algorithm"], p["beta"]) for p in pairs if p["algorithm"] in MUST and p["beta"] in (0.1, 0.15)}
if len(checked) != 2 * len(MUST):
    failures.append(f"only {len(checked)} of {2 * len(MUST)} settings are there")
conclude(failures)
