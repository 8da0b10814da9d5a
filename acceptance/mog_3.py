"""Seed means at sft, beta >= 0.05: training reaches the exact optimum; DPO's gap is shown.

Reward within 0.02 of exact_reward for reinforce, rloo, grpo, ppo; KL(pi || pi*) <= 0.1 (ppo 0.15).
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from common import conclude, finished_run, rows

KL = {"reinforce": 0.1, "rloo": 0.1, "grpo": 0.1, "ppo": 0.15}
groups = defaultdict(list)
for row in rows(finished_run("mog")):
    if row["recipe"] == "align-distil" and row["stage"] == "align" and (row["beta"] or 0) >= 0.05:
        groups[row["algorithm"], row["beta"]].append(row)
failures, checked = [], 0
print(f"{'algorithm':14s} {'beta':>5s} {'seeds':>5s} {'reward':>8s} {'exact':>8s} {'gap':>8s} {'KL to pi*':>9s}")
for (algorithm, beta), cells in sorted(groups.items()):
    reward, exact = fmean(r["reward"] for r in cells), fmean(r["exact_reward"] for r in cells)
    kl = fmean(r["kl_to_optimum"] for r in cells)
    print(f"{algorithm:14s} {beta:5} {len(cells):5d} {reward:8.4f} {exact:8.4f} {reward - exact:8.4f} {kl:9.4f}")
    if algorithm in KL:
        checked += 1
        if abs(reward - exact) > 0.02 or kl > KL[algorithm] or len(cells) != 20:
            failures.append(f"{algorithm} at beta {beta}: gap {reward - exact:.4f}, KL {kl:.4f}, {len(cells)} seeds")
if checked != 24:
    failures.append(f"{checked} settings checked, not 24")
conclude(failures)
