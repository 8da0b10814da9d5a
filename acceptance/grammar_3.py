"""SIGKILL in every kind of work of a grammar study, and while weights are saved: the resumed run is the same, bytewise.

With one worker the order of tasks is known: tasks are killed half-way, until every kind has died twice, and that it was
this kind is read from what the next start computes first. Then a run is killed while its workers open, fill and rename
files. Two minutes on two quiet cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import CLI, ROOT, RUNS, conclude, fresh

sys.path.insert(0, str(ROOT / "tests" / "faults"))
from fault_runs import SIGKILLED, content, injected, start

from alignfirst.store import Store

STUDY = """
world: grammar
name: killed
seeds: 2
beta: 0.1
algorithms: [grpo, dpo-offline]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 8}
sft: {hidden: 32, layers: 2, intermediate: 64, steps: 200, batch: 64}
distil: {hidden: 16, intermediate: 32, steps: 200, batch: 64, samples: 4096}
align: {updates: 60, samples: 64}
preferences: {pairs: 256}
measure: {samples: 2048}
"""
SAVING, EACH = 6, 2  # kills while saving, and of every kind of work
KINDS = ("sft", "align", "distil", "measure")
DOING = {"measure": "measure (sampling)", "distil": "distil (sampling, then fitting)"}
failures: list[str] = []


def command(out: Path) -> list[str]:
    return [*CLI, "run", str(study), "--out", str(out), "--workers", "1", "--no-report"]


def tasks(out: Path) -> list[dict[str, object]]:
    path = out / "timings.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def same(out: Path, what: str) -> None:
    theirs, ours = content(out), content(whole)
    differing = [name for name in ours if theirs[name] != ours[name]]
    print(
        f"{what}: {len(theirs['store'])} results, {'all equal' if not differing else f'{differing} differ'}", flush=True
    )
    failures.extend(f"{what}: {name} differs" for name in differing)


folder = fresh(RUNS / "grammar-kill")
folder.mkdir(parents=True)
study, whole, out = folder / "study.yaml", folder / "whole", folder / "killed"
study.write_text(STUDY)
assert subprocess.run(command(whole), capture_output=True).returncode == 0
order = tasks(whole)

died: Counter[str] = Counter()
killed = over = False
while not over:
    before = len(tasks(out))
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        while process.poll() is None and len(tasks(out)) == before:
            time.sleep(0.002)
        now = tasks(out)
        if killed:
            died[str(now[before]["kind"])] += 1  # what is computed first is what was not finished
            killed = False
        over = process.poll() is not None or len(now) == len(order)
        if over or died[str(order[len(now)]["kind"])] < EACH:
            break
        before = len(now)
    if over:
        process.wait()
        break
    time.sleep(0.5 * float(str(order[len(now)]["seconds"])))
    process.kill()
    process.wait()
    killed = True
    if damaged := Store(out / "store").damaged():
        failures.append(f"{len(damaged)} results are damaged after a kill")
for kind in KINDS:
    print(f"killed in {DOING.get(kind, kind):32s} {died[kind]:2d} times")
    if not died[kind]:
        failures.append(f"never killed in {kind}")
assert subprocess.run(command(out), capture_output=True).returncode == 0
same(out, "killed in every stage, resumed")

saved, half, moments = folder / "saving", 0, ({"on": "open"}, {"on": "rename"}, {"on": "open", "delay": 0.3})
for kill in range(SAVING):
    process = start(study, saved, env=injected("SIGKILL", 1 + kill % 2, **moments[kill % 3]))  # type: ignore[arg-type]
    process.communicate()
    if process.returncode != SIGKILLED:
        failures.append(f"kill {kill} while saving: exit {process.returncode}")
    half += bool(list((saved / "store").glob("*.tmp")))
    if damaged := Store(saved / "store").damaged():
        failures.append(f"{len(damaged)} results are damaged after a kill")
print(f"killed while weights were saved: {SAVING} times, {half} left a file half written")
assert subprocess.run(command(saved), capture_output=True).returncode == 0
same(saved, "killed while saving, resumed")
conclude(failures + ([] if half else ["no kill met a file that was being written"]))
