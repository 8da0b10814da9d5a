"""A fresh environment with torch and `pip install '.[lm]'`, then `alignfirst run grammar`: its claims as they fall.

    python acceptance/grammar_1.py [--run DIR ...]

Fails where a cell did not end, a comparison over 5 seeds has no interval, or a run on two cores took more than 45
minutes; what the claims say is printed, whatever it is. A quarter of an hour on two quiet cores. `--run` reads finished
runs instead (grammar, grammar-rare, grammar-common) and installs nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from common import ROOT, RUNS, conclude, fresh, rows, shell

PRESET, SEEDS, MINUTES = "grammar", 5, 45.0
failures: list[str] = []


def installed_and_run() -> Path:
    venv, out = fresh(RUNS / "venv-lm"), fresh(RUNS / PRESET)
    install = f"{venv}/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt"
    steps = (f"{sys.executable} -m venv {venv}", f"{install} torch", f"{install} '.[lm]'")
    for step in steps:
        if shell(step, ROOT):
            conclude([step])
    begin = time.perf_counter()
    if shell(f"{venv}/bin/alignfirst run {PRESET} --out {out} --workers 2", ROOT, OMP_NUM_THREADS="1"):
        failures.append(f"alignfirst run {PRESET} did not exit 0")
    minutes = (time.perf_counter() - begin) / 60
    print(f"{PRESET}, two workers: {minutes:.1f} minutes (bar {MINUTES:g})")
    if minutes > MINUTES:
        failures.append(f"{minutes:.1f} minutes")
    return out


def shown(value: float | None) -> str:
    return "     -" if value is None else f"{value:+6.3f}"


def check(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    status = Counter(row["status"] for row in rows(run) if row["final"])
    seconds = manifest.get("seconds")
    print(f"\n{manifest['name']}: {manifest['status']}, cells {dict(status)}, last sitting {seconds} s")
    if manifest["status"] != "complete" or set(status) != {"ok"}:
        failures.append(f"{run}: {manifest['status']}, {dict(status)}")
    tests = json.loads((run / "statistics.json").read_text())["claims"]
    print(f"{'claim':26s} {'algorithm':12s} {'beta':>5s} {'estimate':>8s} {'95 % interval':>18s} verdict")
    for test in tests:
        interval = f"[{shown(test['low'])}, {shown(test['high'])}]"
        where = f"{test['claim']:26s} {test['algorithm']:12s} {test['beta']:5}"
        print(f"{where} {shown(test['estimate']):>8s} {interval:>18s} {test['verdict']}")
        if test["n"] != SEEDS or (test["low"] is None and not test["note"]):
            failures.append(f"{where}: {test['n']} seeds, interval {interval}")
    for claim in dict.fromkeys(test["claim"] for test in tests):
        print(f"{claim}: {dict(Counter(test['verdict'] for test in tests if test['claim'] == claim))}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", type=Path, nargs="+", help="finished runs to read")
for finished in parser.parse_args().run or [installed_and_run()]:
    check(finished)
conclude(failures)
