"""Real preference data and a real model on two cores: SmolLM2-135M-Instruct, a ten-layer cut of it as the student, DPO,
both orders (examples/own-models.yaml). Held-out numbers of every stage, the report, an export that plain transformers
loads in a process of its own, where it gives the recorded log-probabilities and writes. Twenty minutes of one
core; started again, it goes on from what is stored.

    python acceptance/own_1.py PAIRS.jsonl      # or ALIGNFIRST_PAIRS=PAIRS.jsonl

PAIRS is any file in one of TRL's preference formats with a few hundred rows; the line was written for AlpacaEval's 805.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import RUNS, cli, conclude, fresh, rows
from own import EXAMPLE, pairs_file

MINUTES = 90
SLACK = 2e-3  # nats of an answer of up to 64 tokens, float32 against float32
SENTENCE = "This size shows the machinery, not the claim: alignments of 9 updates"
RECIPES = ("align-distil", "distil-align")
SHOWN = ("held_out_accuracy", "held_out_margin", "logp_chosen", "logp_rejected", "overall_precision", "overall_recall")

# Nothing of this package: what a reader of the exported folder has
READER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, checks = sys.argv[1], json.loads(sys.stdin.read())
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
found = []
for check in checks:
    ids, at = check["prompt"] + check["answer"], len(check["prompt"])
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    found.append(sum(float(logp[i - 1, ids[i]]) for i in range(at, len(ids))))
asked = [{"role": "user", "content": "Name three colours."}]
inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
drawn = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1]:]
print(json.dumps({"logp": found, "tokens": len(drawn), "text": tokenizer.decode(drawn, skip_special_tokens=True),
                  "alignfirst": "alignfirst" in sys.modules}))
"""


def played(pairs: Path, out: Path) -> list[str]:
    """Run the study, or what is left of it."""
    begin = time.monotonic()
    done = cli("run", EXAMPLE, "--set", f"data.pairs={pairs}", "--out", out)
    minutes = (time.monotonic() - begin) / 60
    print(f"alignfirst run: exit code {done.returncode}, {minutes:.1f} minutes now")
    if done.returncode:
        sys.exit(f"{done.stderr[-3000:]}")
    spent = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    worked = sum(line["cpu_seconds"] for line in spent) / 60
    print(f"stages took {worked:.1f} minutes of processor time in all")
    return [f"it took {minutes:.0f} minutes, {worked:.0f} of processor time"] * (max(minutes, worked / 2) > MINUTES)


def held_out(found: list[dict[str, Any]]) -> list[str]:
    """Every stage of both orders has its numbers, with intervals."""
    wrong = []
    print(f"{'stage':<24}" + "".join(f"{name:>19}" for name in SHOWN))
    for row in found:
        name = f"{row['recipe']} {row['stage_index']} {row['stage']}"
        print(f"{name:<24}" + "".join(f"{'-':>19}" if row[n] is None else f"{row[n]:>19.3f}" for n in SHOWN))
        asked = [n for n in SHOWN if row["stage"] != "sft" or not n.startswith("held_out")]
        missing = [n for n in asked if row[n] is None or n not in row["intervals"]]
        if row["status"] != "ok" or missing or row["held_out_pairs"] < 16:
            wrong.append(f"{name}: {row['status']}, without {missing}, on {row['held_out_pairs']} pairs")
    stages = [(row["recipe"], row["stage"]) for row in found]
    wanted = [(r, s) for r in RECIPES for s in ("sft", *r.split("-"))]
    return wrong + [f"stages are {stages}"] * (stages != wanted)


def exported(out: Path, recipe: str, row: dict[str, Any], folder: Path) -> list[str]:
    """Export, then read the folder where nothing of this package is."""
    from alignfirst.store import Store

    done = cli("export", out, recipe, folder)
    if done.returncode:
        return [f"export exited {done.returncode}: {done.stderr[-500:]}"]
    checks = Store(out / "store").get(row["model"]).meta["check"]
    read = subprocess.run(
        [sys.executable, "-I", "-c", READER, str(folder)], input=json.dumps(checks), capture_output=True, text=True
    )
    if read.returncode:
        return [f"{recipe}: plain transformers cannot use the folder: {read.stderr[-800:]}"]
    told = json.loads(read.stdout)
    off = max(abs(a - c["logp"]) / max(1.0, abs(a) / 100) for a, c in zip(told["logp"], checks, strict=True))
    print(f"{recipe}: {len(checks)} answers, log-probabilities within {off:.2g} nats; it writes: {told['text']!r}")
    wrong = [f"{recipe}: log-probabilities are off by {off:.3g}"] * (not off <= SLACK or len(checks) < 4)
    return wrong + [f"{recipe}: nothing was written"] * (not told["tokens"]) + ["not clean"] * told["alignfirst"]


def reported(out: Path) -> list[str]:
    """The page, built from the run's files now: an earlier version may have built the one that is there."""
    done = cli("report", out)
    if done.returncode:
        return [f"report exited {done.returncode}: {done.stderr[-500:]}"]
    return [f"the report does not say: {SENTENCE}"] * (SENTENCE not in (out / "report.html").read_text())


def main() -> None:
    pairs = pairs_file(__doc__)
    out = RUNS / "own-1"
    failures = played(pairs, out)
    found = rows(out)
    failures += held_out(found) + reported(out)
    for recipe in RECIPES:
        final = next(row for row in found if row["recipe"] == recipe and row["final"])
        failures += exported(out, recipe, final, fresh(RUNS / "own-1-exports" / recipe))
    print(f"look at it: {out / 'report.html'}")
    conclude(failures)


if __name__ == "__main__":
    main()
