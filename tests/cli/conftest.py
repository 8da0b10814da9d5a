"""One tiny finished run, shared by the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alignfirst.api import Run, run
from alignfirst.cli.app import app

TINY = {
    "seeds": 5,
    "algorithms": ["reinforce", "dpo-offline"],
    "beta": 0.1,
    "align.updates": 20,
    "sft.samples": 200,
    "sft.components": 8,
    "distil.samples": 200,
    "preferences.pairs": 64,
}
TINY_SETS = [f"--set={key}={value}" for key, value in TINY.items()]
Invoke = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tiny_sets() -> list[str]:
    return TINY_SETS


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("mog-quick", out=tmp_path_factory.mktemp("finished") / "tiny", workers=0, set=TINY)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with a cache of its own and no wish for tracebacks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALIGNFIRST_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def invoke() -> Invoke:
    """The command line inside this process."""

    def call(*arguments: object, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], input=input)

    return call


@pytest.fixture
def shell() -> Shell:
    """The command line as its own process, with the exit code that a shell sees."""

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alignfirst", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)

    return call
