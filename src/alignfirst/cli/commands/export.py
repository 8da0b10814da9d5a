"""`alignfirst export`: a trained model of a run as a folder that plain transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignfirst.cli import out


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    recipe: Annotated[str, typer.Argument(help="The recipe whose model is wanted.", metavar="RECIPE")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must be empty or new.", metavar="DIR")],
    algorithm: Annotated[str | None, typer.Option("--algorithm", help="Which, where the run has several.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="Which, where the run has several.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="By default the first one's.")] = None,
    stage: Annotated[int | None, typer.Option("--stage", help="Counted from 0 (sft); by default the last.")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter alone, not merged.")] = False,
    json: out.Json = False,
) -> None:
    """Write a model with tokenizer, generation config and card."""
    from alignfirst.api import load

    where = {"algorithm": algorithm, "beta": beta}
    load(run).export(recipe, folder, stage=stage, seed=seed, adapter=adapter, **where)
    files = sorted(path.name for path in folder.iterdir())
    if json:
        out.as_json({"folder": str(folder), "files": files})
        return
    out.line(f"{folder}: {', '.join(files)}")
