"""Code of a user that ends, leaves or doubles its process never decides how a command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import command
from ledger import Count
from toy_world import ToyConfig

from alignfirst.errors import ExitCode, InputError, StageFailure
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.runner import run
from alignfirst.user_code import FunctionProcess, contained

Counter = Callable[[str], Count]
ENDS = {
    "exit": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "leave": ("import os; os._exit(0)", "exit code 0"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
}
FORK = "import os; os.fork()"
LENGTHS = "return [float(len(c)) for c in completions]"


def process_of(folder: Path, name: str, at_import: str = "", at_work: str = "") -> FunctionProcess:
    body = f"{at_import}\ndef f(prompts, completions):\n    {at_work or 'pass'}\n    {LENGTHS}\n"
    (folder / f"{name}.py").write_text(body)
    return FunctionProcess(f"{name}:f", folder)


def test_a_reward_that_ends_its_process_at_import(tmp_path: Path, count: Counter) -> None:
    """A reward module that ends its process while it is imported is refused; one that forks works once."""
    counted = count("gates: rewards at import")
    for name, (code, words) in ENDS.items():
        with counted.trial(), pytest.raises(InputError, match=words) as refused:
            process_of(tmp_path, f"import_{name}", at_import=code)
        assert refused.value.exit_code == ExitCode.USAGE
    with counted.trial():
        process = process_of(tmp_path, "import_fork", at_import=FORK)
        try:
            assert [process(["a"], ["bcd"], "x"), process(["a"], ["bc"], "x")] == [[3.0], [2.0]]
        finally:
            process.close()


def test_a_reward_that_ends_its_process_at_work(tmp_path: Path, count: Counter) -> None:
    """A reward that ends its process while it is asked fails in words; one that forks answers once."""
    counted = count("gates: rewards at work")
    for name, (code, words) in ENDS.items():
        process = process_of(tmp_path, f"work_{name}", at_work=code)
        try:
            with counted.trial(), pytest.raises(StageFailure, match=words) as failed:
                process(["a"], ["b"], "the audit")
            assert failed.value.exit_code == ExitCode.FAILED
        finally:
            process.close()
    process = process_of(tmp_path, "work_fork", at_work=FORK)
    try:
        with counted.trial():
            assert [process(["a"], ["bcd"], "x"), process(["a"], ["bc"], "x")] == [[3.0], [2.0]]
    finally:
        process.close()


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "import os; os._exit(0)", FORK])
def test_a_plugin_that_ends_its_process(tmp_path: Path, code: str, count: Counter) -> None:
    """A plug-in that ends or doubles the process at import is refused with exit code 2."""
    info = tmp_path / "ending_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ending-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[alignfirst.algorithms]\nending = ending_module:THING\n")
    (tmp_path / "ending_module.py").write_text(f"{code}\nTHING = 3\n")
    place = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    with count("gates: plug-ins at import").trial():
        arguments = command("run", "mog-quick", "--set", "algorithms=ending", "--out", tmp_path / "run")
        env = os.environ | {"PYTHONPATH": place}
        done = subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 2 and "ending-plugin==0.1" in done.stderr, done.stderr
        assert "its import" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["exit", "leave", "interrupt", "fork"])
def test_a_world_that_ends_its_process(
    tmp_path: Path, how: str, count: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that ends its worker fails alone, and the run says so; a worker that forks goes on once."""
    monkeypatch.setenv("TOY_FAIL", json.dumps([{"kind": "align", "seed": 1, "how": how}]))
    with count("gates: worlds at work").trial():
        result = run(ToyConfig(seeds=2), tmp_path / "run", ExecutionOptions(1))
        wanted = ExitCode.OK if how == "fork" else ExitCode.PARTLY_FAILED
        assert result.exit_code == wanted, result


def test_interrupts_still_interrupt() -> None:
    from alignfirst.errors import Terminated

    for interrupt in (KeyboardInterrupt, Terminated):
        with pytest.raises(interrupt), contained():
            raise interrupt


def test_prints_of_user_code(tmp_path: Path, capfd: pytest.CaptureFixture[str], count: Counter) -> None:
    """What a reward or a plug-in prints never stands among the results on stdout."""
    counted = count("output: prints of user code")
    with counted.trial():
        with contained():
            print("noise")
        assert capfd.readouterr() == ("", "noise\n")
    with counted.trial():
        process = process_of(tmp_path, "printing", at_import="print('noise')", at_work="print('noise')")
        try:
            assert process(["a"], ["bcd"], "x") == [3.0]
        finally:
            process.close()
        assert not capfd.readouterr().out
