"""The audit of preset mog at beta 0.1 against its training: decided verdicts right, sft goes, lost students do not.

References are audited before anything is aligned (`--reference mog:...`); the study is run after.
"""

from __future__ import annotations

import json

from common import cli, conclude, finished_run, rows

ALGORITHMS = ("reinforce", "rloo", "grpo", "ppo", "dpo-online", "dpo-offline")
SEEDS, BETA = range(20), 0.1
LOST = 1e-3  # target mass below which a student has lost the target

calls = {}
for seed in SEEDS:
    for name, reference in (("distil-align", "mog:distil-align/distil"), ("align-distil", "mog:sft")):
        asked = [option for a in ALGORITHMS for option in ("--algorithm", a)]
        done = cli("audit", "--reference", f"{reference}@seed={seed}", "--beta", BETA, *asked, "--json")
        for plan in json.loads(done.stdout)["plans"]:
            calls[name, plan["algorithm"], seed] = plan["verdict"]

found = rows(finished_run("mog"))
ends = {
    (r["recipe"], r["algorithm"], r["seed"]): r["target_mass"]
    for r in found
    if r["stage"] == "align" and r["beta"] == BETA and (r["recipe"], r["algorithm"], r["seed"]) in calls
}
students = {r["seed"]: r["target_mass"] for r in found if r["recipe"] == "distil-align" and r["stage"] == "distil"}
failures = []
for algorithm in ALGORITHMS:
    for recipe in ("distil-align", "align-distil"):
        told = [(calls[recipe, algorithm, s], ends[recipe, algorithm, s] > 0.5) for s in SEEDS]
        decided = [(call == "go") == reached for call, reached in told if call != "insufficient data"]
        went = sum(call == "go" for call, _ in told)
        print(f"{algorithm:12s} {recipe:13s} go {went:2d}, decided {len(decided):2d}, right {sum(decided):2d}")
        if sum(decided) < 0.95 * len(decided):
            failures.append(f"{algorithm}, {recipe}: {sum(decided)} of {len(decided)} decided verdicts right")
for seed in SEEDS:
    if calls["align-distil", "reinforce", seed] != "go":
        failures.append(f"sft of seed {seed} is not a go for reinforce")
    lost = students[seed] < LOST
    if lost and "go" in {calls["distil-align", a, seed] for a in ALGORITHMS}:
        failures.append(f"the student of seed {seed} has lost the target and is a go")
conclude(failures)
