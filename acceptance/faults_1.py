"""The campaign of faults, bad inputs and hostile inputs, whole: each of its items is tried as often as it says and
survives each time. About forty minutes on two cores; needs Linux, root, Chromium, PyTorch and Ray: what was left out
for want of one counts as a failure. Given the figures of a campaign (`make test-slow` leaves runs/faults.json and
runs/others.json) it judges those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, RUNS, conclude, fresh

sys.path.insert(0, str(ROOT / "tests" / "faults"))
from table import ITEMS, shortcomings

# Two lanes at once: studies that are killed and resumed wait for imports and disks, the other one computes.
LANES = {
    "faults": ("tests/faults",),
    "hostile": (
        "tests/hostile", "tests/browser/test_payloads.py", "tests/browser/test_audit_page.py",
        "tests/worlds/test_grammar_world.py", "tests/lm/test_own_card.py",
    ),
}  # fmt: skip


def start(lane: str, folder: Path) -> subprocess.Popen[bytes]:
    figures = ("--figures", str(folder / f"{lane}.json"), "--hypothesis-profile", "random")
    with open(folder / f"{lane}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *LANES[lane], *figures],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def campaign(folder: Path) -> tuple[list[Path], list[str]]:
    """Run it: files of figures, and lanes that failed."""
    folder.mkdir()
    failures, begin = [], time.monotonic()
    for lane, process in {lane: start(lane, folder) for lane in LANES}.items():
        if code := process.wait():
            print((folder / f"{lane}.log").read_text()[-5000:])
            failures.append(f"the lane of {lane} exited {code}")
    print(
        f"{(time.monotonic() - begin) / 60:.1f} minutes; for docs/reliability.md: tests/faults/table.py {folder}/*.json"
    )
    return sorted(folder.glob("*.json")), failures


given, failures = [Path(name) for name in sys.argv[1:]], list[str]()
if not given:
    given, failures = campaign(fresh(RUNS / "faults-1"))
counts = {name: count for path in given for name, count in json.loads(path.read_text()).items()}
for number, item in enumerate(ITEMS, 1):
    found = [counts[name] for name in item.least if name in counts]
    tried, survived = (sum(count[key] for count in found) for key in ("tried", "survived"))
    print(f"{number:2} {item.title:12} {len(found)} of {len(item.least)} promises, survived {survived:,} of {tried:,}")
conclude([*failures, *shortcomings(counts)])
