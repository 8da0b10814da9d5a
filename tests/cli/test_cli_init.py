"""`alignfirst init`: every file it writes is a valid study that says what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from alignfirst.cli.commands import init
from alignfirst.study.config import preset_files, starter

Invoke = Callable[..., Result]


def test_flags_make_a_valid_study(invoke: Invoke) -> None:
    done = invoke("init", "p.yaml", "--teacher", "org/big@abc", "--pairs", "d.jsonl", "--student-layers", "4")
    assert done.exit_code == 0 and "alignfirst run p.yaml --dry-run" in done.stdout
    study = preset_files.load("p.yaml")
    assert study.name == "p" and study.value("teacher.model") == "org/big@abc"
    assert study.value("student.layers") == 4 and study.value("data.pairs") == "d.jsonl"
    assert study.recipes == ("align-distil", "distil-align")


@pytest.mark.parametrize("algorithm", ["dpo-offline", "rloo", "grpo"])
def test_trl_and_adapters(invoke: Invoke, algorithm: str) -> None:
    flags = ("--algorithm", algorithm, "--trainer", "trl", "--lora-rank", "8", "--reward", "m:f")
    done = invoke("init", "p.yaml", "--pairs", "d.jsonl", *flags)
    assert done.exit_code == 0, done.stderr
    study = preset_files.load("p.yaml")
    assert study.value("align.trainer") == "trl" and study.value("lora.rank") == 8
    assert study.value("align.learning_rate") == starter.LORA_RATE


def test_prompts_with_a_reward(invoke: Invoke) -> None:
    assert invoke("init", "p.yaml", "--prompts", "p.jsonl", "--reward", "m:f").exit_code == 0
    study = preset_files.load("p.yaml")
    assert study.algorithms == ("grpo",) and study.value("reward.function") == "m:f"


@pytest.mark.parametrize(
    "odd", ["a: b # c", '"quoted"', "- list", "{x: 1}", "*alias", "päth with 空.jsonl", "1e5", "no"]
)
def test_odd_names_come_back_as_they_are(invoke: Invoke, odd: str) -> None:
    assert invoke("init", "p.yaml", "--teacher", odd, "--pairs", odd).exit_code == 0
    study = preset_files.load("p.yaml")
    assert (study.value("teacher.model"), study.value("data.pairs")) == (odd, odd)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "data must be pairs or prompts"),
        (("--pairs", "a", "--prompts", "b", "--reward", "m:f"), "data must be pairs or prompts"),
        (("--prompts", "b"), "reward"),
        (("--pairs", "a", "--algorithm", "dpo"), "must be an algorithm"),
        (("--pairs", "a", "--beta", "0"), "beta must be > 0"),
        (("--pairs", "a", "--student-layers", "3", "--student", "m"), "student"),
        (("--pairs", "a\nb"), "one line"),
    ],
)
def test_what_would_not_be_a_study_is_refused_and_not_written(
    invoke: Invoke, flags: tuple[str, ...], says: str
) -> None:
    refused = invoke("init", "p.yaml", *flags)
    assert refused.exit_code == 2 and says in refused.stderr
    assert not Path("p.yaml").exists()


def test_a_file_that_is_there_stays(invoke: Invoke) -> None:
    Path("p.yaml").write_text("mine")
    refused = invoke("init", "p.yaml", "--pairs", "a")
    assert refused.exit_code == 2 and Path("p.yaml").read_text() == "mine"
    assert invoke("init", "p.yaml", "--pairs", "a", "--force").exit_code == 0
    assert invoke("init", "p.txt", "--pairs", "a").exit_code == 2


def test_it_asks_for_what_is_left_open(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "somebody_there", lambda: True)
    done = invoke("init", "p.yaml", "--teacher", "t", input="d.jsonl\ny\n6\n\n")
    assert done.exit_code == 0, done.stderr
    study = preset_files.load("p.yaml")
    assert study.value("student.layers") == 6 and study.algorithms == ("dpo-offline",)
    assert study.value("teacher.model") == "t" and study.value("data.pairs") == "d.jsonl"
    assert study.value("data.chat") is True
