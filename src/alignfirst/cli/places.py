"""Where runs are: what a person means by RUN."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignfirst.errors import InputError

RUNS = Path("runs")
MANIFEST = "manifest.json"


def _complete_study(incomplete: str) -> list[str]:
    from alignfirst.study.config import preset_files

    return [name for name in preset_files.names() if name.startswith(incomplete)]


def _complete_run(incomplete: str) -> list[str]:
    return [path.parent.name for path in RUNS.glob(f"*/{MANIFEST}") if path.parent.name.startswith(incomplete)]


StudyName = Annotated[
    str,
    typer.Argument(metavar="PRESET_OR_FILE", help="A preset's name or a YAML file.", autocompletion=_complete_study),
]
RunPath = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run directory, or the name of one in runs/.", autocompletion=_complete_run),
]


def run_path(given: Path) -> Path:
    """The run directory. Raises InputError where there is none."""
    for path in (given, RUNS / given):
        if (path / MANIFEST).is_file():
            return path
    raise InputError(
        "RUN must be a run directory", str(given), "`alignfirst ls` lists runs; `alignfirst run` makes one."
    )
