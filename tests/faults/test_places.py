"""Odd places: names of any script, no home, no network, a terminal of another encoding."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import command
from ledger import Count

from alignfirst.api import load

Counter = Callable[[str], Count]
TINY = [
    "mog-quick", "--workers", "1", "--set", "seeds=2", "--set", "algorithms=reinforce", "--set", "beta=0.1",
    "--set", "align.updates=10", "--set", "sft.samples=100", "--set", "sft.components=4", "--set", "distil.samples=100",
]  # fmt: skip
lm = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs alignfirst[lm]")


def shell(*arguments: object, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in (os.environ | environment).items() if v is not None}
    return subprocess.run(command(*arguments), cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with spaces", "häuser & söhne", "日本語", "a'b\"c", "#1 50%", "-dash", "🙂"])
def test_folders_of_any_name(tmp_path: Path, name: str, count: Counter) -> None:
    """Runs, reports and stores work in folders whose names have spaces, quotes, signs and any script."""
    folder = tmp_path / name
    folder.mkdir()
    with count("places: names").trial():
        done = shell("run", *TINY, "--out", f"./{name}/run", cwd=folder)
        assert done.returncode == 0, done.stderr
        out = folder / name / "run"
        assert (out / "report.html").exists()
        assert load(out).status == "complete"
        assert shell("run", *TINY, "--out", f"./{name}/run", "--json", cwd=folder).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"HOME": None}, {"HOME": "/nonexistent"}, {"HOME": "/proc"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
     {"TERM": "dumb"}, {"COLUMNS": "1"}, {"TMPDIR": "/nonexistent"}, {"PATH": ""}, {"TZ": "nonsense"}],
)  # fmt: skip
def test_environments(tmp_path: Path, environment: dict[str, str | None], count: Counter) -> None:
    """A study needs no home folder, no locale, no wide terminal, no folder for temporary files and no PATH."""
    with count("places: environments").trial():
        done = shell("run", *TINY, "--out", tmp_path / "run", cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
@lm
def test_no_network(tmp_path: Path, count: Counter) -> None:
    """Without a network the id of a model on the hub is refused within seconds, in words that say what to do."""
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n")
    audit = command("audit", "--reference", "someone/some-model", "--pairs", "pairs.jsonl")
    alone = ["unshare", "--user", "--map-root-user", "--net", *audit]
    if shutil.which("unshare") is None or subprocess.run([*alone[:4], "true"], capture_output=True).returncode:
        pytest.skip("a process without network takes unshare, and the right to use it")
    env = os.environ | {"HF_HOME": str(tmp_path / "hub")}
    counted = count("places: no network")
    for offline in ("", "1"):
        with counted.trial():
            begin = time.monotonic()
            done = subprocess.run(
                alone, cwd=tmp_path, env=env | {"HF_HUB_OFFLINE": offline}, capture_output=True, text=True, timeout=200
            )
            counted.most(seconds_with_imports_on_a_machine_that_may_be_busy=time.monotonic() - begin)
            assert done.returncode == 2, done.stderr
            assert "hub cache or within reach" in done.stderr
            assert ("Unset HF_HUB_OFFLINE" if offline else "Check the network, or name a directory") in done.stderr
