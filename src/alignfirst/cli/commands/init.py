"""`alignfirst init`: a starting file for a study of one's own models, from flags or answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from alignfirst.cli import out
from alignfirst.errors import InputError

Text = str | None


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("pipeline.yaml"),
    teacher: Annotated[Text, typer.Option(help="The large model: a directory, a hub id, a .gguf file.")] = None,
    pairs: Annotated[Text, typer.Option(help="Preference pairs.")] = None,
    prompts: Annotated[Text, typer.Option(help="Prompts alone; needs --reward.")] = None,
    reward: Annotated[Text, typer.Option(help="module:function, what an answer is worth.")] = None,
    shape: out.Shape = "auto",
    column: out.Columns = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Wrap plain text into the chat template.")
    ] = None,
    student_layers: Annotated[int | None, typer.Option(help="Layers of the teacher that the student keeps.")] = None,
    student: Annotated[Text, typer.Option(help="A pretrained student.")] = None,
    student_config: Annotated[Text, typer.Option(help="A config to make a student from scratch.")] = None,
    algorithm: Annotated[Text, typer.Option(help="dpo-offline, grpo, ...")] = None,
    beta: Annotated[float | None, typer.Option(help="How strongly alignment is held to its reference.")] = None,
    trainer: Annotated[Text, typer.Option(help="native or trl.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Train adapters of this rank.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="By default both orders. Repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a starting file for a study of your own models.

    On a terminal it asks for what the flags leave open.
    """
    from alignfirst.data.layouts import layout_of
    from alignfirst.study.config import preset_files, starter

    if file.suffix not in (".yaml", ".yml"):
        raise InputError("a study's file must end in .yaml", str(file), "For example pipeline.yaml.")
    if file.exists() and not force:
        raise InputError("init must not write over a file", str(file), "Choose another name, or add --force.")
    given: dict[str, Any] = {
        "teacher": teacher,
        "pairs": pairs,
        "prompts": prompts,
        "chat": chat,
        "reward": reward,
        "student_layers": student_layers,
        "student_model": student,
        "student_config": student_config,
        "algorithm": algorithm or (None if prompts is None else "grpo"),
        "beta": beta,
        "trainer": trainer,
        "lora_rank": lora_rank,
        "orders": None if recipe is None else tuple(recipe),
        "layout": layout_of(shape, column or ()),
    }
    said = {name: value for name, value in given.items() if value is not None}
    if somebody_there():
        said = ask(said)
    text = starter.text(starter.Answers(preset_files.name_of(file), **said))
    for note in starter.checked_data(said.get("pairs"), said.get("prompts"), said["layout"]):
        out.note(note)
    _write(file, text)
    out.line(f"{file} is written. Next:")
    out.line(f"  alignfirst run {file} --dry-run")
    out.line(f"  alignfirst run {file}")


def somebody_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(said: dict[str, Any]) -> dict[str, Any]:
    """Fill in what flags left open. Every question has a default but the data."""
    from alignfirst.study.config import starter

    said = dict(said)
    if "teacher" not in said:
        said["teacher"] = _prompt("The large model (directory, hub id or .gguf file)", starter.TEACHER)
    if "pairs" not in said and "prompts" not in said:
        pairs = _prompt("Preference pairs (a file, a folder or a hub id; empty for prompts and a reward)", "")
        if pairs:
            said["pairs"] = pairs
        else:
            said["prompts"] = _prompt("A file of prompts")
            said.setdefault("reward", _prompt("The reward, as module:function"))
    if "chat" not in said:
        said["chat"] = typer.confirm("Wrap plain text into the model's chat template?", default=False, err=True)
    if not said.keys() & {"student_layers", "student_model", "student_config"}:
        said["student_layers"] = typer.prompt(
            "Layers of it that the compact model keeps", default=starter.LAYERS, type=int, err=True
        )
    if "algorithm" not in said:
        default = starter.ALGORITHM if "pairs" in said else "grpo"
        said["algorithm"] = _prompt("Alignment algorithm", default)
    return said


def _prompt(question: str, default: str | None = None) -> str:
    answer: str = typer.prompt(question, default=default, show_default=bool(default), err=True)
    return answer.strip()


def _write(file: Path, text: str) -> None:
    from alignfirst import files

    files.write_atomic(file, [text.encode()])
