"""A new user with only the docs page open: the commands of docs/own-models.md, "From your files to a compact model",
run as they stand there, in a folder that holds a tiny random Llama with its tokenizer and a preference file. Two
minutes.

Every command exits 0 with something to read; the dry run trains nothing; the Python there, run where this package is
not imported, loads what was exported; the same `run` again does nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace

from common import CLI, ROOT, RUNS, conclude, fresh, rows

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import own_models as made

SECTION = "## From your files to a compact model"
WORDS = ("init", "run", "run", "report", "export")
SAYS = ("pipeline.yaml is written", "nothing", "complete", "report.html", "model.safetensors")
HELD_OUT = ("logp_chosen", "logp_rejected", "overall_precision", "overall_recall")


def blocks() -> list[str]:
    """What stands between fences in the section, in its order."""
    page = (ROOT / "docs" / "own-models.md").read_text()
    section = page.split(f"{SECTION}\n")[1].split("\n## ")[0]
    return re.findall(r"```\w*\n(.*?)```", section, re.S)


def main() -> None:
    folder = fresh(RUNS / "own-5")
    folder.mkdir(parents=True)
    made.SIZES = replace(made.SIZES, positions=256)  # room for answers of the default length
    made.teacher(folder / "my-sft-model", made.TEMPLATE)
    made.write(folder / "preferences.jsonl", made.pairs(200))
    env = os.environ | {"ALIGNFIRST_CACHE": str(folder / "cache")}
    failures = []
    commands, python, rewarded, reward = blocks()
    lines = [shlex.split(line) for line in commands.splitlines()]
    if [line[:2] for line in lines] != [["alignfirst", word] for word in WORDS]:
        conclude([f"the page's commands are {commands}"])
    for line, says in zip(lines, SAYS, strict=True):
        print(f"$ {shlex.join(line)}", flush=True)
        done = subprocess.run([*CLI, *line[1:]], capture_output=True, text=True, cwd=folder, env=env)
        print("".join(f"  {text}\n" for text in done.stdout.splitlines()[:6]), end="")
        if done.returncode or "Traceback" in done.stderr or (says != "nothing" and says not in done.stdout):
            failures.append(f"{shlex.join(line)}: exit code {done.returncode}, {done.stdout} {done.stderr[-800:]}")
        if "--dry-run" in line and (folder / "runs").exists():
            failures.append("the dry run wrote something")
    made.write(folder / "prompts.jsonl", [{"prompt": row["prompt"]} for row in made.pairs(200)])
    (folder / "my_rewards.py").write_text(reward)
    for line in (rewarded, "alignfirst run rewarded.yaml --dry-run"):
        done = subprocess.run([*CLI, *shlex.split(line)[1:]], capture_output=True, text=True, cwd=folder, env=env)
        print(f"$ {line.strip()}: exit code {done.returncode}")
        failures += [f"{line}: {done.stdout} {done.stderr[-800:]}"] * (done.returncode != 0)
    again = subprocess.run([*CLI, *lines[2][1:]], capture_output=True, text=True, cwd=folder, env=env)
    failures += [f"again: {again.stdout}"] * ("nothing to do" not in again.stdout)
    read = subprocess.run([sys.executable, "-I", "-c", python + READER], capture_output=True, text=True, cwd=folder)
    told = json.loads(read.stdout or "{}")
    print(f"plain transformers: {told}")
    failures += [f"plain transformers: {told} {read.stderr[-800:]}"] * (
        told != {"layers": 2, "drawn": 4, "ours": False}
    )
    for row in rows(folder / "runs" / "pipeline"):
        if row["status"] != "ok" or any(row[name] is None for name in HELD_OUT):
            failures.append(f"{row['recipe']} {row['stage']}: {row['status']}, held-out numbers missing")
    conclude(failures)


READER = """
import json, sys
inputs = tokenizer.apply_chat_template([{"role": "user", "content": "a b"}], add_generation_prompt=True,
                                       return_tensors="pt", return_dict=True)
drawn = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)[0, inputs["input_ids"].shape[1]:]
print(json.dumps({"layers": model.config.num_hidden_layers, "drawn": len(drawn), "ours": "alignfirst" in sys.modules}))
"""

if __name__ == "__main__":
    main()
