"""The tokens and operations that `alignfirst run smollm2 --dry-run` prints are those counted while a tiny study runs,
stage by stage, within 2 %; no text ends early in either. A minute."""

from __future__ import annotations

import json
from collections import defaultdict

from alignfirst.store import Store
from alignfirst.study.config import preset_files
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study
from chain import tiny
from common import RUNS, cli, conclude, fresh

WITHIN = 0.02
COUNTS = ("sampled", "scored", "trained")

values = tiny(RUNS / "chain-star", **{"p_star.ends": False})
sets = [x for key, value in values.items() for x in ("--set", f"{key}={json.dumps(value)}")]
out = fresh(RUNS / "smollm2-counted")
planned = cli("run", "smollm2", *sets, "--out", out, "--dry-run", "--json")
if planned.returncode:
    conclude([f"the dry run exited {planned.returncode}: {planned.stderr}"])
bill = json.loads(planned.stdout)["bill"]
done = cli("run", "smollm2", *sets, "--out", out, "--no-report")
failures = [f"the run exited {done.returncode}: {done.stderr[-2000:]}"] if done.returncode else []

config = preset_files.load("smollm2", values)
counted: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: dict.fromkeys((*COUNTS, "flops"), 0.0))
store = Store(out / "store")
for key, node in plan_study(config, load_world(config.world)).nodes.items():
    if node.kind == "audit":  # is no stage: what it scores is foreseen, and no record counts it
        continue
    meta = store.get(key).meta
    if node.kind == "measure":
        tokens, flops = meta["shown"]["cost"]["tokens"], meta["shown"]["cost"]["flops"]
    elif node.kind == "distil":  # without its teacher's texts, which are steps of their own
        tokens, flops = meta["trained_tokens"], meta["trained_flops"]
    else:
        tokens, flops = meta["tokens"], meta["flops"]
    line = counted[node.kind, node.label]
    for name in COUNTS:
        line[name] += tokens.get(name, 0)
    line["flops"] += flops
for stage in bill["stages"]:
    if stage["kind"] == "audit":
        print(f"{stage['kind']:<8} {stage['for']:<16} planned {stage['flops']:.6g}, not counted")
        continue
    mine = counted.pop((stage["kind"], stage["for"]))
    for name, value in mine.items():
        if abs(stage[name] - value) > WITHIN * value:
            failures.append(f"{stage['kind']} {stage['for']}: {name} {stage[name]:g} planned, {value:g} counted")
    print(f"{stage['kind']:<8} {stage['for']:<16} planned {stage['flops']:.6g}, counted {mine['flops']:.6g} operations")
if counted:
    failures.append(f"not in the dry run: {list(counted)}")
conclude(failures)
