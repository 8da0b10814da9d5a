"""Names and links that lead elsewhere: refused, or kept inside."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from ledger import Count
from toy_world import ToyConfig
from typer.testing import CliRunner

from alignfirst import report
from alignfirst.cli.app import app
from alignfirst.errors import AlignfirstError, ExitCode, InputError
from alignfirst.study.config import preset_files
from alignfirst.study.dry_run import dry_run
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.runner import run

CONFIG: dict[str, Any] = {"seeds": 1, "algorithms": ["ppo"], "beta": [0.1]}
Counter = Callable[[str], Count]
NAMES = (
    "../x", "/etc/x", "a/b", "a\\b", "..", ".", "", " ", "a\0b", "a" * 300, "CON", "nul.txt", "com1", "~", "~root",
    "-x",
    "a\nb", "a\u202eb", "\ud800", "$(touch canary)", "a;b", "x.", "*", "é" * 70, "\x1b[2J", "%00", "..%2fx",
    "x:y",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_that_names_a_folder(name: str, count: Counter) -> None:
    """A study's name, from which its folder is made, is refused unless it is plain: no separators, no dots that climb,
    no control characters, no reserved or endless names."""
    with count("paths: names").trial(), pytest.raises(InputError, match=r"name must|must be Unicode|must be at most"):
        preset_files.load({"extends": "mog", "name": name})


def outside(tmp_path: Path) -> Path:
    """A folder with something to lose."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("precious.txt", "x.tmp", "timings.jsonl", "run.lock", "records.jsonl"):
        (folder / name).write_text("precious")
    return folder


def untouched(folder: Path) -> bool:
    return all(path.read_text() == "precious" for path in folder.iterdir()) and len(list(folder.iterdir())) == 5


PLACES: dict[str, Callable[[Path], Path]] = {
    "a name of 300 characters": lambda t: t / ("a" * 300),
    "a path of 6,000 characters": lambda t: t.joinpath(*["a" * 200] * 30),
    "a NUL": lambda t: t / "a\0b",
    "half a surrogate pair": lambda t: t / "\ud800",
    "a file": lambda t: t / "outside" / "precious.txt",
    "below a file": lambda t: t / "outside" / "precious.txt" / "run",
    "a link to itself": lambda t: link(t / "loop", t / "loop"),
    "a link to a folder of other things": lambda t: link(t / "there", t / "outside"),
    "below such a link": lambda t: link(t / "there", t / "outside") / "precious.txt" / "x",
    "climbing": lambda t: t / "x" / ".." / "outside",
}


@pytest.mark.parametrize("command", ["report", "status", "ls", "export", "compare"])
def test_a_path_too_long_to_exist(command: str) -> None:
    """A path that no file system would take is refused in words by commands that read runs."""
    arguments = [command, "a" * 300] + ["b" * 300] * (command == "compare")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "a fault of alignfirst" not in result.stderr


def link(at: Path, to: Path) -> Path:
    if not at.is_symlink():
        at.symlink_to(to)
    return at


@pytest.mark.parametrize("place", PLACES)
def test_a_run_directory_that_is_none(place: str, tmp_path: Path, count: Counter) -> None:
    """A run directory that cannot be one, or that holds other things (also behind a link), is refused in words, and
    nothing there is touched."""
    folder = outside(tmp_path)
    out = PLACES[place](tmp_path)
    config, here = ToyConfig(**CONFIG), ExecutionOptions(workers=0)
    with count("paths: places").trial():
        for call in (lambda: run(config, out, here), lambda: dry_run(config, out)):
            try:
                call()
            except AlignfirstError as e:
                assert str(e).isprintable() and len(str(e)) < 800
            else:
                assert call().cells == 2, "only asking what would be done may pass"  # type: ignore[union-attr]
        result = CliRunner().invoke(app, ["run", "mog-quick", "--workers", "0", "--out", str(out)])
        assert result.exit_code in (ExitCode.FAILED, ExitCode.USAGE)
        assert "a fault of alignfirst" not in result.stderr and "rror: " in result.stderr
        assert untouched(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
    return out


LINKS = (
    "store", "store/quarantine", "store/x.shard", "timings.jsonl", "events.jsonl", "errors.log", "run.lock",
    "run.lock.json", "manifest.json", "config.yaml", "records.jsonl", "figures", "report.html",
)  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_a_run_directory(whole: Path, tmp_path: Path, name: str, count: Counter) -> None:
    """A run directory from elsewhere that holds a link leading out of it is refused: nothing outside is written, moved
    or removed."""
    folder, out = outside(tmp_path), tmp_path / "run"
    shutil.copytree(whole, out)
    at = out / name
    target = folder if name in ("store", "store/quarantine", "figures") else folder / "records.jsonl"
    if at.is_dir():
        shutil.rmtree(at)
    at.unlink(missing_ok=True)
    at.symlink_to(target)
    with count("paths: links").trial():
        with pytest.raises(InputError, match=r"nothing in a run directory may lead out of it"):
            run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
        if "store" not in name:  # a report does not read the store
            with pytest.raises(AlignfirstError):
                report.build(out)
        assert untouched(folder)


def test_a_run_directory_behind_a_link_of_its_user(tmp_path: Path, count: Counter) -> None:
    """A run directory may itself be a link that its user made, to another disk for example: files land there alone."""
    there = tmp_path / "disk"
    there.mkdir()
    with count("paths: links").trial():
        result = run(ToyConfig(**CONFIG), link(tmp_path / "run", there), ExecutionOptions(workers=0))
        assert result.status == "complete"
        assert (there / "records.jsonl").exists()
        assert sorted(os.listdir(tmp_path)) == ["disk", "run"]
