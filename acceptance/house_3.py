"""One line is one line: each thing that docs/architecture.md says how to add is added, with the lines that it took.

Runs `tests/contracts/test_extending.py` alone: it adds each to a copy of the checkout and runs its suites there.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from common import ROOT, RUNS, conclude, fresh

ADDED = {
    "a": "a recipe",
    "b": "a claim",
    "c": "an algorithm on log-probabilities without a reference",
    "d": "a metric",
    "e": "a figure for one world",
    "f": "a colour of a recipe",
    "g": "a schedule for alignment alone",
    "h": "top-p for drawing, reachable from a study",
}


def main() -> None:
    told = fresh(RUNS / "house-3.xml")
    noted = [f"--junitxml={told}", "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "pytest", "-q", "tests/contracts/test_extending.py", *noted]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    failures = [done.stdout[-4000:]] if done.returncode else []
    cases = list(ElementTree.parse(told).iter("testcase")) if told.exists() else []
    for letter, what in ADDED.items():
        mine = [c for c in cases if c.attrib["name"].startswith(f"test_{letter}_")]
        if not mine:
            failures.append(f"({letter}) {what}: nothing adds it")
        for case in mine:
            if case.find("skipped") is not None:
                failures.append(f"({letter}) {what}: skipped, {case.find('skipped').attrib['message']}")
            edits = {p.attrib["name"]: int(p.attrib["value"]) for p in case.iter("property")}
            lines = ", ".join(f"{file} {n}" for file, n in edits.items())
            print(f"({letter}) {what}: {sum(edits.values())} lines: {lines} [{case.attrib['name']}]")
    conclude(failures)


if __name__ == "__main__":
    main()
