"""Walks through the house: the files that one value passes through, in order, as a tracer sees them in small real runs.

    python acceptance/house_5.py [--source CHECKOUT]

- A beta, from `--set` to the mixture's kernel.
- A preference row, from its file to the first gradient it has a part in.
- A node, from the plan to the store.

Runs compute in one process (`--workers 0`), so that one tracer sees all of it. A file is on the walk where a function
of it is given, holds or returns the value. A move leads from one such function to the next one in another file; a move
that repeats counts once. Figures of the house before it was rebuilt stand beside: as a reader counted them, and as this
tracer counts them there (`--source` names another checkout to walk through).

A preference row is parsed and tokenised at most twice, once for the index and once for the training, and the data room
hands it on in one form, which the world and the trainer take as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ROOT, RUNS, conclude, fresh

HERE = Path(__file__).resolve().parent
# files, moves: as a reader counted them before, and as this tracer counts them in that checkout
BEFORE = {"beta": ((16, 20), (22, 44)), "row": ((17, 26), (18, 34)), "node": ((18, 22), (16, 27))}
TITLES = {
    "beta": "a beta, from --set to the kernel",
    "row": "a preference row, from file to gradient",
    "node": "a node, from plan to store",
}
READS = 2  # of a preference row: for the index, and for the training
HANDED_ON = {"data.TokenRow"}  # what leaves the data room, and what the trainer is given


def walk(name: str, source: Path) -> dict[str, Any]:
    """One walk in a process of its own, through the checkout at `source`."""
    place = fresh(RUNS / f"house-5-{name}")
    place.mkdir(parents=True)
    cache = {"ALIGNFIRST_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    paths = [str(source / "src"), str(source / "tests" / "lm")]
    done = subprocess.run(
        [sys.executable, str(HERE / "house_walks.py"), name, str(source), str(place)],
        env=os.environ | cache | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"the walk {name} exited {done.returncode}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads((place / "walk.json").read_text())
    return found


def show(name: str, found: dict[str, Any]) -> None:
    print(f"\n{TITLES[name]}: {len(found['files'])} files, {found['moves']} moves")
    read, traced = BEFORE[name]
    print(f"  before, as a reader counted: {read[0]} files, {read[1]} moves; by this tracer: {traced[0]}, {traced[1]}")
    for number, (file, function) in enumerate(found["files"], 1):
        print(f"  {number:2} {file}: {function}")


def judge_row(found: dict[str, Any]) -> list[str]:
    print("\nforms of a preference row, room by room:")
    for room, forms in found["forms"].items():
        print(f"  {room}: {', '.join(forms)}")
    print(f"  handed from room to room: {', '.join(found['handed on'])}")
    print(f"  parsed {found['parsed']} times, tokenised {found['tokenised']} times; gradient seen: {found['reached']}")
    failures = []
    for what in ("parsed", "tokenised"):
        if not 1 <= found[what] <= READS:
            failures.append(f"a preference row is {what} {found[what]} times")
    if set(found["handed on"]) != HANDED_ON:
        failures.append(f"a row is handed from room to room as {', '.join(found['handed on'])}")
    world = {form for form in found["forms"]["worlds/user_models"] if not form.startswith("lm.")}
    if world != HANDED_ON:
        failures.append(f"the world holds a row as {', '.join(sorted(world))}")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout to walk through")
    source = parser.parse_args().source.resolve()
    failures: list[str] = []
    for name in TITLES:
        found = walk(name, source)
        show(name, found)
        if not found["reached"]:
            failures.append(f"{TITLES[name]}: its end was not reached")
        if name == "row":
            failures += judge_row(found)
    conclude(failures)


if __name__ == "__main__":
    main()
