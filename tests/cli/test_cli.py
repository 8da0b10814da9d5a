"""The command line: what each command prints and where, as text and as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from alignfirst import __version__
from alignfirst.api import Run
from alignfirst.cli import out
from alignfirst.cli.progress import plain_lines
from alignfirst.files import sealed
from alignfirst.study.config import preset_files, yaml_io

Invoke = Callable[..., Result]


def as_json(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def copy(finished: Run, elsewhere: Path) -> Path:
    """A run of one's own to damage, at runs/tiny."""
    return shutil.copytree(finished.path, elsewhere / "runs" / "tiny")


def test_version_and_help(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"alignfirst {__version__}\n"
    for command in ("run", "report", "compare", "ls", "status", "presets", "show"):
        assert command in invoke("--help").stdout
        assert "--json" in invoke(command, "--help").stdout


def test_presets(invoke: Invoke) -> None:
    assert [p["name"] for p in as_json(invoke("presets", "--json"))] == preset_files.names()
    text = invoke("presets").stdout
    assert all(name in text for name in preset_files.names())


def test_show_is_a_file_that_runs_the_same_study(invoke: Invoke, elsewhere: Path) -> None:
    result = invoke("show", "mog-boundary", "--set", "beta=0.2", "--set", "align.updates=10,20")
    (elsewhere / "mine.yaml").write_text(result.stdout)
    config = preset_files.load(elsewhere / "mine.yaml")
    assert config == preset_files.load("mog-boundary", ["beta=0.2", "align.updates=10,20"])
    assert as_json(invoke("show", elsewhere / "mine.yaml", "--json")) == config.resolved()


def test_run_says_what_holds_and_where_it_is(invoke: Invoke, tiny_sets: list[str]) -> None:
    first = invoke("run", "mog-quick", *tiny_sets, "--workers", 0, "--no-report")
    assert first.exit_code == 0, first.stderr
    assert "mog-quick: complete, 20 cells, 60 records" in first.stdout
    assert "Aligning first ends with higher reward" in first.stdout
    assert "runs/mog-quick/records.csv" in first.stdout
    assert "done" in first.stderr and "done" not in first.stdout

    again = as_json(invoke("run", "mog-quick", *tiny_sets, "--workers", 0, "--no-report", "--json"))
    assert again["nothing_to_do"] and again["status"] == "complete"
    assert [sum(c[v] for v in ("holds", "reversed", "undecided", "insufficient")) for c in again["claims"]] == [2] * 5
    assert again["paths"]["report"] is None


def test_run_builds_the_report_once(invoke: Invoke, copy: Path, tiny_sets: list[str]) -> None:
    command = ("run", "mog-quick", *tiny_sets, "--out", copy, "--json")
    page = Path(as_json(invoke(*command))["paths"]["report"])
    built = page.stat().st_mtime_ns
    as_json(invoke(*command))
    assert page.stat().st_mtime_ns == built
    (copy / "summary.md").unlink()
    as_json(invoke(*command))
    assert (copy / "summary.md").exists()


def test_dry_run_touches_nothing(invoke: Invoke, tiny_sets: list[str], elsewhere: Path) -> None:
    plan = as_json(invoke("run", "mog-quick", *tiny_sets, "--dry-run", "--json"))
    assert (plan["cells"], plan["rows"], plan["out"]) == (20, 60, "runs/mog-quick")
    assert {s["kind"] for s in plan["stages"]} >= {"sft", "align", "distil", "measure"}
    assert all(s["stored"] == 0 and s["to_run"] == s["steps"] for s in plan["stages"])
    assert list(elsewhere.iterdir()) == []
    assert "20 cells" in invoke("run", "mog-quick", *tiny_sets, "--dry-run").stdout


def test_dry_run_counts_what_is_stored(invoke: Invoke, copy: Path, tiny_sets: list[str]) -> None:
    plan = as_json(invoke("run", "mog-quick", *tiny_sets, "--out", copy, "--dry-run", "--json"))
    assert all(s["to_run"] == 0 for s in plan["stages"])


def test_another_study_in_the_directory_is_refused(invoke: Invoke, copy: Path) -> None:
    before = (copy / "records.jsonl").read_bytes()
    result = invoke("run", "mog-quick", "--out", copy)
    assert result.exit_code == 2
    assert "a run directory holds one study" in result.stderr
    assert (copy / "records.jsonl").read_bytes() == before


def test_report(invoke: Invoke, copy: Path) -> None:
    assert invoke("report", "tiny").stdout == "runs/tiny/report.html\n"
    found = as_json(invoke("report", copy, "--json"))
    assert Path(found["report"]).exists() and Path(found["summary"]).exists()
    assert found["figures"] and all(Path(f).exists() for f in found["figures"])


def test_ls_and_status(invoke: Invoke, copy: Path) -> None:
    [listed] = as_json(invoke("ls", "--json"))
    assert (listed["path"], listed["status"], listed["cells"]) == ("runs/tiny", "complete", 20)
    assert "runs/tiny" in invoke("ls", "runs").stdout
    found = as_json(invoke("status", "tiny", "--json"))
    assert (found["status"], found["changed_files"], found["holder"]) == ("complete", [], None)
    assert "complete" in invoke("status", copy).stdout


def test_status_names_damage(invoke: Invoke, copy: Path) -> None:
    (copy / "records.jsonl").write_text("{}\n")
    assert as_json(invoke("status", "tiny", "--json"))["changed_files"] == ["records.jsonl"]
    assert "damaged" in invoke("status", "tiny").stdout
    (copy / "manifest.json").write_text("{")
    assert as_json(invoke("ls", "--json"))[0]["status"] == "damaged"
    assert invoke("status", "tiny").exit_code == 0
    result = invoke("report", "tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


def test_status_of_an_unfinished_run(invoke: Invoke, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(sealed(manifest | {"status": "interrupted"})))
    stored = as_json(invoke("status", "tiny", "--json"))["stored"]
    assert stored["steps"] == stored["of"] > 0
    assert "run the same command again" in invoke("status", "tiny").stdout


def test_ls_of_nothing(invoke: Invoke) -> None:
    assert as_json(invoke("ls", "--json")) == []
    assert "no runs in runs" in invoke("ls").stdout
    assert invoke("ls", "nowhere").exit_code == 2


def test_compare(invoke: Invoke, finished: Run, copy: Path) -> None:
    same = invoke("compare", finished.path, "tiny")
    assert same.exit_code == 0, same.stderr
    assert "The configs say the same." in same.stdout and "8 the same" in same.stdout
    assert all(d["difference"] == 0 for d in as_json(invoke("compare", finished.path, "tiny", "--json"))["differences"])
    wrong = invoke("compare", finished.path, "tiny", "--metric", "rewrad")
    assert wrong.exit_code == 2 and "Choose from reward" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "mgo"), "Did you mean mog?"),
        (("run", "mog", "--set", "bta=1"), "Did you mean beta?"),
        (("run", "mog", "--set", "beta=0"), "beta must be > 0, got 0: the optimum ignores the reference."),
        (("run", "mog", "--set", "beta=.nan"), "must be a finite number"),
        (("run", "mog", "--set", "recipes=[]"), "recipes must have at least one value"),
        (("run", "mog", "--set", "name=../x"), "name must be a plain name"),
        (("run", "mog", "--set", "p_star.weights=[-1,1,1,1,1,1,1,1]"), "p_star.weights must be between"),
        (("run", "mog", "--set", "beta"), "--set must be KEY=VALUE"),
        (("run", "mog-quick", "--workers", "-1"), "workers must be >= 0"),
        (("run", "none.yaml"), "No such file"),
        (("show", "mgo"), "Did you mean mog?"),
        (("report", "nowhere"), "RUN must be a run directory"),
        (("status", "nowhere"), "RUN must be a run directory"),
        (("compare", "nowhere", "nowhere"), "RUN must be a run directory"),
    ],
)
def test_bad_input_is_one_clean_message(
    invoke: Invoke, elsewhere: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


HOSTILE = "\x1b[31m[bold red]x[/]\r\n\x9b2J\u202e"


def test_text_of_others_neither_steers_the_terminal_nor_is_markup(invoke: Invoke, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    hostile = {"preset": HOSTILE, "status": HOSTILE, "started": HOSTILE, "counts": {HOSTILE: 1, "cells": 2}}
    (copy / "manifest.json").write_text(json.dumps(sealed(manifest | hostile)))
    for arguments in (
        ("ls",),
        ("status", "tiny"),
        ("run", HOSTILE),
        ("run", "mog", "--set", HOSTILE + "=1"),
        ("ls", HOSTILE),
    ):
        result = invoke(*arguments)
        text = result.stdout + result.stderr
        assert "[bold red]x[/]" in text
        assert all(c.isprintable() or c == "\n" for c in text), arguments


def test_clean() -> None:
    assert out.clean("a\x1b[0m\nb\u202e") == r"a\x1b[0m\nb\u202e"
    assert out.clean("größe [red]") == "größe [red]"


def test_plain_progress_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    advance = plain_lines("study")
    advance(0, 1000, "", 0)
    for done in range(1, 1000):
        advance(done, 1000, "align", 2)
    advance(1000, 1000, "measure", 1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split(":")[1].split(" done")[0] for line in shown.err.splitlines()] == [" 0 of 1000", " 1000 of 1000"]


def test_durations() -> None:
    assert [out.duration(s) for s in (None, 0.04, 59.9, 60, 3599, 7260)] == [
        "-", "0.0 s", "59.9 s", "1 min 00 s", "59 min 59 s", "2 h 01 min",
    ]  # fmt: skip


def test_resolved_config_is_what_show_prints(invoke: Invoke) -> None:
    assert invoke("show", "mog").stdout == yaml_io.dumps(preset_files.load("mog").resolved())
