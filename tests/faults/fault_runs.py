"""Studies of tiny cells as processes of their own, and what must be the same however they came about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignfirst.store import Store
from alignfirst.study.output.run_dir import DIGESTED

INJECTED = Path(__file__).parent / "injected"

# 200 cells: 2 recipes x 2 algorithms x 5 betas x 10 seeds
MIXTURE = """
extends: mog-quick
name: tiny
seeds: 10
recipes: [align-distil, distil-align]
algorithms: [reinforce, dpo-offline]
beta: [0.05, 0.1, 0.15, 0.2, 0.3]
align: {updates: 20, samples: 64}
sft: {samples: 200, components: 8}
distil: {samples: 200}
preferences: {pairs: 64}
"""

# 200 cells: 2 recipes x 2 algorithms x 2 betas x 25 seeds
GRAMMAR = """
world: grammar
name: tiny-grammar
seeds: 25
recipes: [align-distil, distil-align]
algorithms: [grpo, dpo-offline]
beta: [0.1, 0.3]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 8}
sft: {hidden: 16, layers: 1, heads: 2, intermediate: 32, steps: 10, batch: 16}
distil: {hidden: 8, heads: 2, intermediate: 16, steps: 10, batch: 16, samples: 64}
align: {updates: 4, samples: 16}
preferences: {pairs: 32}
measure: {samples: 64}
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "alignfirst", *map(str, arguments)]


def start(study: Path, out: Path, *more: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A study as its own process with two workers and no report."""
    return subprocess.Popen(
        command("run", study, "--out", out, "--workers", 2, "--no-report", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )


def finish(study: Path, out: Path, *more: object) -> str:
    """Run a study to its end; what it printed on stderr."""
    process = start(study, out, *more)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return errors


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a run, and see its workers go with it."""
    workers = children(process.pid)
    process.kill()
    process.communicate()
    gone(workers)


def content(out: Path) -> dict[str, Any]:
    """What must not depend on what happened on the way."""
    return {name: (out / name).read_bytes() for name in DIGESTED} | {"store": Store(out / "store").digests()}


def children(pid: int) -> set[int]:
    """Live children of a process."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return found


def gone(pids: Sequence[int] | set[int], seconds: float = 10.0) -> None:
    """They take milliseconds; seconds are for machines that are busy with other tests."""
    until(lambda: not any(alive(pid) for pid in pids), seconds)


def injected(what: str, at: int, **more: float) -> dict[str, str]:
    """Environment in which a process of a run does something at its n-th event, see `injected/sitecustomize.py`."""
    paths = [str(INJECTED), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {f"FAULT_{name.upper()}": str(value) for name, value in more.items()}
    return {"PYTHONPATH": os.pathsep.join(paths), "FAULT": what, "FAULT_AT": str(at)} | settings


SIGKILLED = -signal.SIGKILL
