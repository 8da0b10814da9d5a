"""The command as a process: exit codes, signals, streams, start-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alignfirst.api import Run

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


def test_exit_codes(shell: Shell, finished: Run) -> None:
    assert shell("--version").returncode == 0
    assert shell("status", finished.path).returncode == 0
    assert shell("run", "mgo").returncode == 2
    for arguments in (("run",), ("run", "mog", "--bogus"), ("nonsense",), ("run", "mog", "--workers", "two")):
        result = shell(*arguments)
        assert result.returncode == 2
        assert "Usage:" in result.stderr and "Traceback" not in result.stderr
    (Path("file")).write_text("")
    result = shell("run", "mog-quick", "--out", "file/x")
    assert result.returncode == 1
    assert "error: " in result.stderr and "Traceback" not in result.stderr


def test_a_traceback_only_when_asked_for(shell: Shell) -> None:
    assert "Traceback" not in shell("run", "mgo").stderr
    assert "Traceback" in shell("run", "mgo", ALIGNFIRST_DEBUG="1").stderr


def test_an_unexpected_error_is_told_in_words(monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., object]) -> None:
    from alignfirst.study.config import preset_files

    def broken() -> list[str]:
        raise RuntimeError("x\x1b[2J")

    monkeypatch.setattr(preset_files, "names", broken)
    result = invoke("presets")
    assert result.exit_code == 1  # type: ignore[attr-defined]
    assert "unexpected RuntimeError: x\\x1b[2J" in result.stderr  # type: ignore[attr-defined]
    assert "ALIGNFIRST_DEBUG=1" in result.stderr  # type: ignore[attr-defined]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_run_that_can_be_finished(sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "alignfirst", "run", "mog", "--out", "out", "--workers", "1", "--no-report"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and not (Path("out") / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == "" and "Traceback" not in stderr
    assert '"status": "interrupted"' in (Path("out") / "manifest.json").read_text()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(unbuffered: str) -> None:
    """As in `alignfirst show mog | head -1`, whether the pipe breaks while it is written to or at the end."""
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "alignfirst", "show", "mog-boundary", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        result = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, timeout=60)
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr


def test_a_terminal_without_unicode(shell: Shell) -> None:
    result = shell("presets", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


def test_the_light_commands_import_nothing_heavy() -> None:
    heavy = ("numpy", "scipy", "numba", "torch", "matplotlib", "plotly", "pydantic", "rich.table")
    code = f"""
import sys
from alignfirst.cli import main
try:
    main(["--version"])
except SystemExit as e:
    assert not e.code
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_import_is_light() -> None:
    code = "import sys, alignfirst; sys.exit('numpy' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_signal_after_the_work_changes_nothing() -> None:
    """Once the exit code is decided, neither Ctrl-C nor SIGTERM gives another one."""
    code = """
import os, signal
from alignfirst.cli import main
try:
    main(["--version"])
except SystemExit as e:
    assert not e.code
for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sigterm_before_the_work_is_143() -> None:
    code = """
import os, signal
from alignfirst.cli import app, main
app.app = lambda **_: os.kill(os.getpid(), signal.SIGTERM)
main([])
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 143
