"""What the acceptance scripts share. Each script prints its figures and exits 0 only where its line holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "accept"
CLI = [sys.executable, "-m", "alignfirst"]


def cli(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `alignfirst` with these arguments in this environment."""
    return subprocess.run([*CLI, *map(str, args)], capture_output=True, text=True, **options)


def finished_run(preset: str) -> Path:
    """A complete run of a preset, computed now unless an earlier script did."""
    out = RUNS / preset
    done = cli("run", preset, "--out", out)
    if done.returncode:
        sys.exit(f"alignfirst run {preset} exited {done.returncode}: {done.stderr[-2000:]}")
    return out


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def store_digests(run: Path) -> dict[str, str]:
    from alignfirst.store import Store

    return Store(run / "store").digests()


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def shell(command: str, cwd: Path, **environment: str) -> int:
    """Run a command with its output shown; a virtual environment of the caller does not leak in."""
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")} | environment
    print(f"$ {command}", flush=True)
    return subprocess.run(command, shell=True, cwd=cwd, env=env).returncode


def conclude(failures: list[str]) -> None:
    """Exit 0 where nothing failed, else 1 with the list."""
    for failure in failures:
        print(f"FAILED: {failure}")
    print("holds" if not failures else "does not hold")
    sys.exit(bool(failures))
