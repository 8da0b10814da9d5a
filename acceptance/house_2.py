"""The move changed no number: four runs at the commit before it and now, record by record. Half an hour.

    python acceptance/house_2.py [PAIRS.jsonl]

`mog-quick`, `grammar-quick`, `smollm2-tiny`, and examples/own-models.yaml on a slice of PAIRS (or ALIGNFIRST_PAIRS),
without which that run is left out and said to be. Prints the digest of each records.jsonl before and after. Where they
differ, every column that differs is named, and only those in CHANGED, each with its entry in the CHANGELOG, may. The
old code is taken from the history of this checkout.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

from common import ROOT, RUNS, conclude, fresh, rows

BEFORE = "19c0982"
PLACE = RUNS / "house-2"
SMALL = {
    "distil": {"steps": 3, "samples": 12, "prompts": 12},
    "align": {"updates": 3},
    "audit": {"prompts": 2, "samples": 2, "pairs": 4},
    "measure": {"pairs": 6, "prompts": 3, "samples": 3},
}
# column -> why it may differ; nothing else may
CHANGED: dict[str, str] = {}


def old_source() -> Path:
    """`src` as it stood before the move."""
    place = fresh(PLACE / "before")
    archive = subprocess.run(["git", "archive", BEFORE, "src"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        sys.exit(f"the history of this checkout does not reach commit {BEFORE}: fetch it whole")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(place, filter="data")
    return place / "src"


def play(source: Path, study: str, out: Path, sets: list[str]) -> list[dict[str, Any]]:
    """The records of a study, played by the code in `source`."""
    arguments = [word for one in sets for word in ("--set", one)]
    done = subprocess.run(
        [sys.executable, "-m", "alignfirst", "run", study, "--out", str(out), *arguments],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{study} with {source}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return rows(out)


def differing(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Counter[str]:
    """In how many rows each column differs; a column that is new and null differs in none."""
    found: Counter[str] = Counter()
    for a, b in zip(before, after, strict=True):
        found.update(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    return found


def compared(name: str, study: str, sets: list[str], old: Path) -> list[str]:
    before = play(old, study, PLACE / "before" / name, sets)
    after = play(ROOT / "src", study, fresh(PLACE / "after" / name), sets)
    for when in ("before", "after"):
        digest = hashlib.sha256((PLACE / when / name / "records.jsonl").read_bytes()).hexdigest()
        print(f"{name:14} {when:6} {digest}", flush=True)
    if len(before) != len(after):
        return [f"{name}: {len(before)} rows before, {len(after)} after"]
    found = differing(before, after)
    for column, count in sorted(found.items()):
        print(f"{'':14} {column} differs in {count} of {len(after)} rows: {CHANGED.get(column, 'no reason known')}")
    return [f"{name}: {column} differs" for column in sorted(found) if column not in CHANGED]


def main() -> None:
    old = old_source()
    studies: list[tuple[str, str, list[str]]] = [(n, n, []) for n in ("mog-quick", "grammar-quick", "smollm2-tiny")]
    pairs = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ALIGNFIRST_PAIRS")
    if pairs and Path(pairs).is_file():
        sets = [f"{s}.{k}={json.dumps(v)}" for s, values in SMALL.items() for k, v in values.items()]
        example = str(ROOT / "examples" / "own-models.yaml")
        studies.append(("own-models", example, [f"data.pairs={Path(pairs).resolve()}", *sets]))
    else:
        print("examples/own-models.yaml is left out: no file of pairs was named")
    conclude([line for name, study, sets in studies for line in compared(name, study, sets, old)])


if __name__ == "__main__":
    main()
