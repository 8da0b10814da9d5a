"""Wrong lines that a user would pay for, put into a copy of the code one at a time: the tests named for each must fail.

Lines are found by their text, wherever they stand in src/. The same tests pass on the code as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import ROOT, RUNS, conclude, fresh

sys.path.insert(0, str(ROOT))  # the lists are acceptance.wrong_lines.*

AREAS = ("audit", "mog", "lm")
COPIED = ("src", "tests", "docs", "examples")
OUTCOME = re.compile(r"^(PASSED|FAILED) ([^\s\[]+)", re.M)
SOME_FAILED = 1  # exit code of pytest; others say that it could not run them


class Copy:
    """A checkout in a scratch folder. Nothing compiled is kept there, so that no run sees another's code."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.src = fresh(folder), folder / "src"
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.files = sorted(self.src.rglob("*.*"))

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.folder / "numba", ignore_errors=True)
        env = os.environ | {
            "PYTHONPATH": str(self.src), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
            "NUMBA_CACHE_DIR": str(self.folder / "numba"),
        }  # fmt: skip
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=self.folder, env=env)

    def tried(self, tests: Iterable[str]) -> tuple[int, dict[str, set[str]], str]:
        """pytest's exit code, what became of each test function (its cases together), and what it printed."""
        done = self.python("-m", "pytest", "-q", "--tb=no", "-rpf", "-p", "no:cacheprovider", *tests)
        outcomes: dict[str, set[str]] = {test: set() for test in tests}
        for outcome, test in OUTCOME.findall(done.stdout):
            outcomes.setdefault(test, set()).add(outcome)
        return done.returncode, outcomes, (done.stdout + done.stderr)[-1500:]

    def holding(self, text: str) -> list[Path]:
        """Files that hold the text, once for each time."""
        return [f for f in self.files for _ in range(f.read_bytes().count(text.encode()))]


def unchanged(copy: Copy, lines: list[Any]) -> list[str]:
    """What is wrong before anything is changed."""
    imported = copy.python("-c", "import alignfirst; print(alignfirst.__file__)").stdout
    if not imported.startswith(str(copy.src)):
        return [f"the copy is not what is imported, but {imported}"]
    code, outcomes, said = copy.tried(sorted({test for line in lines for test in line.tests}))
    missing = [test for test, found in outcomes.items() if found != {"PASSED"}]
    return [f"on the code as it is: exit code {code}, not passed {missing}: {said}"] if code or missing else []


def tell(name: str, file: str, result: str, seconds: float) -> None:
    print(f"{name:6} {file:45} {result:9} {seconds:6.1f} s", flush=True)


def put_in(copy: Copy, line: Any) -> list[str]:
    """Put one wrong line in, run its tests, put the right one back."""
    found = copy.holding(line.right)
    if len(found) != 1:
        tell(line.name, "-", "NOT FOUND", 0)
        return [f"{line.name}: its right line stands {len(found)} times in src/: {line.right!r}"]
    (file,) = found
    before, begin = file.read_bytes(), time.monotonic()
    file.write_bytes(before.replace(line.right.encode(), line.wrong.encode()))
    code, outcomes, said = copy.tried(line.tests)
    file.write_bytes(before)
    survived = [test for test in line.tests if "FAILED" not in outcomes[test]]
    killed = code == SOME_FAILED and not survived
    tell(line.name, str(file.relative_to(copy.src)), "killed" if killed else "SURVIVED", time.monotonic() - begin)
    return [] if killed else [f"{line.name} ({line.why}) exit code {code}, not failed {survived}: {said}"]


def main() -> None:
    modules = [
        import_module(f"acceptance.wrong_lines.{area}")
        for area in AREAS
        if find_spec(f"acceptance.wrong_lines.{area}") is not None
    ]
    lines = [line for module in modules for line in module.LINES]
    equivalent = [pair for module in modules for pair in getattr(module, "EQUIVALENT", [])]
    copy = Copy(RUNS / "house-0")
    failures = unchanged(copy, lines)
    if not failures:
        failures = [failure for line in lines for failure in put_in(copy, line)]
    for name, reason in equivalent:
        print(f"{name}: equivalent, {reason}")
    conclude(failures or ["no wrong line is listed"] * (not lines))


if __name__ == "__main__":
    main()
