"""A starting file for a study of one's own models: few keys, each with what it does, the rest at their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignfirst.data.layouts import AUTO, Layout
from alignfirst.data.pairs import load_rows
from alignfirst.errors import InputError
from alignfirst.study.config import yaml_io
from alignfirst.study.config.study_config import StudyConfig, from_mapping
from alignfirst.theory.objectives import ALGORITHMS

TEACHER, ALGORITHM, BETA, LAYERS = "smollm2-135m-instruct", "dpo-offline", 0.1, 10
FIRST_ROWS = 1_000  # of the data, which are looked at
GROUP = 8  # answers to one prompt that are compared
FULL_RATE, LORA_RATE = 5e-6, 1e-4  # AdamW's step for all weights, and for adapters


@dataclass(frozen=True)
class Answers:
    """What a starting file depends on. One of `pairs` and `prompts`; one of the students."""

    name: str
    teacher: str = TEACHER
    pairs: str | None = None
    prompts: str | None = None
    layout: Layout = AUTO  # of the columns of the data
    chat: bool = False  # plain text is wrapped into the chat template
    reward: str | None = None  # module:function
    student_layers: int | None = None
    student_model: str | None = None
    student_config: str | None = None
    algorithm: str = ALGORITHM
    beta: float = BETA
    trainer: str = "native"
    lora_rank: int = 0
    orders: tuple[str, ...] = ("align-distil", "distil-align")

    def student(self) -> dict[str, Any]:
        given = {"layers": self.student_layers, "model": self.student_model, "config": self.student_config}
        said = {k: v for k, v in given.items() if v is not None} or {"layers": LAYERS}
        if len(said) > 1:
            raise InputError("a student must be one thing", " and ".join(said), "Cut it, name it, or describe it.")
        return said


def text(a: Answers) -> str:
    """The file. Raises InputError, before anything is written, where it would not be a valid study."""
    if (a.pairs is None) == (a.prompts is None):
        given = "neither" if a.pairs is None else "both"
        raise InputError("data must be pairs or prompts", given, "Use --pairs FILE, or --prompts FILE --reward M:F.")
    found = "\n\n".join(part for part in _parts(a) if part) + "\n"
    check(found)
    return found


def check(found: str) -> StudyConfig:
    return from_mapping(yaml_io.loads(found, "the starting file"))


def _parts(a: Answers) -> list[str]:
    rate = LORA_RATE if a.lora_rank else FULL_RATE
    return [
        "# A study of your own models. Every other key and its default: alignfirst show THIS_FILE\n"
        "# What would be done, and how long it would take: alignfirst run THIS_FILE --dry-run",
        _keys({"world": "hf", "name": a.name}),
        "# Recipes: the order of the stages. `align-only` and `distil-only` are the controls.\n"
        + _keys({"recipes": list(a.orders)}),
        "# A directory, a hub id (id@revision), or a .gguf file.\n" + _section("teacher", {"model": a.teacher}),
        "# The compact model: `layers` cut from the teacher, a pretrained `model`, or a `config` for fresh weights.\n"
        + _section("student", a.student()),
        _data(a),
        _reward(a),
        "# beta: how strongly alignment is held to its reference. A list here is compared, value by value.\n"
        + _keys({"algorithms": [a.algorithm], "beta": [a.beta], "seeds": 1}),
        _section("align", {"trainer": a.trainer, "learning_rate": rate} | _batches(a)),
        "# Low-rank adapters instead of all weights.\n" + _section("lora", {"rank": a.lora_rank})
        if a.lora_rank
        else "",
        "# What the student learns from: its teacher's answers to training prompts.\n"
        + _section("distil", {"loss": "forward-kl", "steps": 200}),
        "# Give both orders the same `updates`, `flops` or `tokens`.\n" + _section("budget", {"match": "flops"}),
    ]


def _data(a: Answers) -> str:
    head = "# Preference pairs: JSON (lines or an array; .gz too), CSV, Parquet, a datasets folder, or a hub id."
    given = {"pairs": a.pairs} if a.pairs is not None else {"prompts": a.prompts}
    if a.prompts is not None:
        head = "# Rows with `prompt`: JSON (lines or an array; .gz too), CSV, Parquet, a datasets folder, or a hub id."
    chat = "# `chat: true` wraps plain text into the model's chat template; messages always go through it."
    more: dict[str, Any] = {} if a.layout.shape == "auto" else {"shape": a.layout.shape}
    if a.layout.columns:
        more["columns"] = dict(a.layout.columns)
    return f"{head}\n{chat}\n" + _section("data", {**given, **more, "held_out": 0.1, "chat": a.chat})


def checked_data(pairs: str | None, prompts: str | None, layout: Layout) -> list[str]:
    """What the first rows of a file of data say, if it is there already.

    Raises InputError where none of them can be used: a run would find out later.
    """
    name = pairs or prompts
    if name is None or not Path(name).expanduser().exists():
        return []
    found = load_rows("pairs" if pairs is not None else "prompts", name, FIRST_ROWS, layout=layout)
    return [f"the first rows: {found.summary()}", *found.told()]


def _reward(a: Answers) -> str:
    if a.reward is None:
        return ""
    head = "# Called with two lists of texts, prompts and answers; gives one number an answer."
    return f"{head}\n" + _section("reward", {"function": a.reward})


def _batches(a: Answers) -> dict[str, Any]:
    """Answers in one forward pass: a whole group at least. Where TRL's GRPO has its KL."""
    method = ALGORITHMS.get(a.algorithm)
    if method is None or method.on_pairs:
        return {}
    return {"chunk": GROUP} | (
        {"level": "token", "kl_in": "loss"} if (a.trainer, a.algorithm) == ("trl", "grpo") else {}
    )


def _section(name: str, keys: Mapping[str, Any]) -> str:
    return f"{name}:\n" + "\n".join(f"  {line}" for line in _keys(keys).splitlines())


def _keys(keys: Mapping[str, Any]) -> str:
    """JSON values are YAML, whatever is in them."""
    return "\n".join(f"{name}: {_value(value)}" for name, value in keys.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:f}".rstrip("0")  # YAML 1.1 reads 5e-6 as text
    return json.dumps(value)
