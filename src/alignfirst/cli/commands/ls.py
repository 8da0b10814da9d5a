"""`alignfirst ls`: runs and how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alignfirst.cli import out
from alignfirst.cli.places import MANIFEST, RUNS
from alignfirst.errors import InputError


def ls(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs.")] = RUNS,
    json: out.Json = False,
) -> None:
    """List the runs in a folder, oldest first."""
    found = runs(folder)
    if json:
        out.as_json(found)
    elif found:
        rows = [
            (r["path"], r["preset"], r["status"], r["cells"], out.duration(r["seconds"]), r["started"]) for r in found
        ]
        out.table(("run", "preset", "status", "cells", "time", "started"), rows, right=("cells", "time"))
    else:
        out.line(f"no runs in {folder}. Start one with: alignfirst run mog-quick")


def runs(folder: Path) -> list[dict[str, Any]]:
    """One dict per run in a folder. The default folder need not exist yet; another must."""
    from alignfirst import files

    if not folder.is_dir():
        if folder == RUNS:
            return []
        raise InputError("ls needs a folder", str(folder), "Name a folder of runs, or leave it out for runs/.")
    with files.reading(folder):
        places = [path for path in (folder, *folder.iterdir()) if (path / MANIFEST).is_file()]
    return sorted(map(summary, places), key=lambda r: (str(r["started"]), r["path"]))


def summary(path: Path) -> dict[str, Any]:
    """What a run's manifest says, and whether somebody is at work on it."""
    from alignfirst.study.output.run_dir import RunDir

    run_dir = RunDir(path)
    manifest = run_dir.manifest()
    holder = run_dir.holder()
    known = manifest or {}
    counts = known.get("counts")
    counts = counts if isinstance(counts, dict) else {}
    return {
        "path": str(path),
        "name": known.get("name"),
        "preset": known.get("preset") or "-",
        "status": "running" if holder is not None else known.get("status") if manifest else "damaged",
        "holder": holder,
        "cells": counts.get("cells"),
        "counts": counts,
        "seconds": known.get("seconds"),
        "started": known.get("started") or "-",
        "version": known.get("version"),
    }
