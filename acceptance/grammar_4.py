"""A reward that returns NaN, text, too few values, raises or hangs: its cell fails with the row named, exit code 3.

One study with all of them beside a reward that works; its siblings end as they should. A minute on two cores.
"""

from __future__ import annotations

import sys
import time

from common import RUNS, cli, conclude, fresh, rows

REWARDS = """
import time

def nan(prompts, texts):
    return [float("nan") if i == 3 else 0.5 for i in range(len(texts))]

def text(prompts, texts):
    return ["good" if i == 2 else 0.5 for i in range(len(texts))]

def few(prompts, texts):
    return [0.5] * (len(texts) - 1)

def raising(prompts, texts):
    raise RuntimeError("no idea")

def hanging(prompts, texts):
    time.sleep(600)
"""
EXPECTED = {  # how, and the row that is named
    "nan": "returned nan for row 3 at update 0",
    "text": "returned good for row 2 at update 0",
    "few": "none for row 15",
    "raising": "raised RuntimeError: no idea for row 0 at update 0",
    "hanging": "gave no answer within 2 s for row 0 at update 0",
}
STUDY = """
world: grammar
seeds: 1
beta: 0.1
algorithms: [grpo]
recipes: [align-distil]
p_star: {{words: 8, own: 4, successors: 2, behaviours: 3, length: 4}}
sft: {{hidden: 8, layers: 1, heads: 2, intermediate: 8, steps: 6, batch: 16}}
distil: {{hidden: 4, heads: 1, intermediate: 4, steps: 4, batch: 16, samples: 64}}
align: {{updates: 8, samples: 16, group_size: 4}}
measure: {{samples: 32}}
reward: {{timeout: 2.0}}
vary:
  reward.kind: [reflected, {kinds}]
"""
folder = fresh(RUNS / "bad-rewards")
folder.mkdir(parents=True)
(folder / "bad_rewards.py").write_text(REWARDS)
(folder / "study.yaml").write_text(STUDY.format(kinds=", ".join(f"'bad_rewards:{name}'" for name in EXPECTED)))
begin = time.perf_counter()
done = cli("run", "study.yaml", "--out", "run", "--workers", 2, cwd=folder)
print(f"exit code {done.returncode} after {time.perf_counter() - begin:.0f} s")
failures = [] if done.returncode == 3 else [f"exit code {done.returncode}, not 3: {done.stderr[-500:]}"]
if not (folder / "run" / "records.jsonl").exists():
    conclude(failures)
found = rows(folder / "run")
for kind in ("reflected", *(f"bad_rewards:{name}" for name in EXPECTED)):
    mine = [row for row in found if row["reward.kind"] == kind]
    status, error = [row["status"] for row in mine], next(row["error"] or "" for row in mine if row["stage"] == "align")
    print(f"{kind:20s} {', '.join(status):24s} {error}")
    words = EXPECTED.get(kind.partition(":")[2])
    if words is None and set(status) != {"ok"}:
        failures.append(f"the sibling did not go on: {status}")
    elif words is not None and (words not in error or "ok" in status):
        failures.append(f"{kind}: {status}, {error!r} does not say {words!r}")
if "Traceback" in done.stderr:
    failures.append("a traceback was printed")
sys.stdout.flush()
conclude(failures)
