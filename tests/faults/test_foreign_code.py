"""Files beside the user that have the names of modules: none of them runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import command
from ledger import Count

from alignfirst import module_search
from alignfirst.errors import InputError
from alignfirst.study.execution import launcher, ray_pool
from alignfirst.study.execution.worker import boot

Counter = Callable[[str], Count]
NAMES = ("json", "re", "typing", "queue", "signal", "numpy", "pydantic", "numba", "safetensors")
TINY = [
    "mog-quick", "--workers", "1", "--no-report", "--set", "seeds=1", "--set", "algorithms=reinforce", "--set",
    "beta=0.1", "--set", "align.updates=2", "--set", "sft.samples=50", "--set", "sft.components=2", "--set",
    "distil.samples=50",
]  # fmt: skip


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder of files with the names of modules, each of which leaves a trace where it runs."""
    folder = tmp_path / "beside"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')\n1 / 0\n")
    return folder


def ran(folder: Path) -> str:
    trace = folder.parent / "ran"
    return trace.read_text() if trace.exists() else ""


def said(arguments: list[str], cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
                          env=module_search.environment() | (env or {}))  # fmt: skip


def test_nothing_beside_the_user_runs(beside: Path, tmp_path: Path, count: Counter) -> None:
    """A study runs in a folder with files called `json.py`, `re.py` or `numpy.py`: command and workers import none."""
    with count("foreign code: files beside the user").trials(len(NAMES)):
        done = said(command("run", *TINY, "--out", tmp_path / "run"), beside)
        assert done.returncode == 0, done.stderr
        assert not ran(beside)


def test_workers_start_apart(beside: Path, count: Counter) -> None:
    """Workers and launchers look for modules neither in the current directory nor beside the script."""
    counted = count("foreign code: processes that are started")
    with counted.trial():
        done = said(boot(), beside)  # it waits for its first line, and leaves at the end of its input
        assert not ran(beside), done.stderr
    with counted.trial():
        made: list[list[str]] = []

        class Process:
            def __init__(self, arguments: list[str], **_: object) -> None:
                made.append(arguments)

            def wait(self) -> None: ...

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launcher.subprocess, "Popen", Process)
            patch.setitem(sys.modules, "accelerate", sys)
            launcher.launch(["run", "x"], 2)
        assert made[0][1] == "-P"
    with counted.trial(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(beside)
        patch.setattr(sys, "path", [str(beside), "", *sys.path])
        assert str(beside) not in ray_pool.own_paths().split(":") and "" not in ray_pool.own_paths().split(":")
        assert not {"", str(beside)} & set(module_search.safe_path())
    with counted.trial(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f":{beside / 'mine'}::")  # an empty place is the current directory
        assert module_search.environment()["PYTHONPATH"] == str(beside / "mine")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs alignfirst[ray]")
def test_ray_puts_no_folder_before_others(count: Counter) -> None:
    """Ray's workers do not get their driver's current directory as the first place of modules."""
    import ray

    with count("foreign code: Ray tasks").trial():
        found = ray_pool.isolated(ray, None)["job_config"]
        found._py_driver_sys_path.extend(["/beside"])  # as `ray.init` does
        assert found._py_driver_sys_path == [] and not found._get_proto_job_config().py_driver_sys_path


def test_a_place_that_was_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert module_search.safe_path()[-1] == str(tmp_path) or str(tmp_path) in module_search.safe_path()[-2:]


# -- modules that a user names ----------------------------------------------------------------------------------------


def test_a_module_is_taken_from_its_folder_and_nothing_else(tmp_path: Path, count: Counter) -> None:
    """A reward module comes from the folder that was meant; what it imports does not, unless it is in its package."""
    counted, helper = count("foreign code: reward modules"), "open('ran', 'w')\n"
    (tmp_path / "colorsys.py").write_text(helper)
    (tmp_path / "helper_beside_x.py").write_text(helper)
    (tmp_path / "reward_x1.py").write_text("import colorsys\nvalue = colorsys.__file__\n")
    with counted.trial():
        module = module_search.import_from(tmp_path, "reward_x1")
        assert not module.value.startswith(str(tmp_path)) and module.__file__ == str(tmp_path / "reward_x1.py")
    (tmp_path / "reward_x2.py").write_text("import helper_beside_x\n")
    with counted.trial():
        with pytest.raises(ModuleNotFoundError):
            module_search.import_from(tmp_path, "reward_x2")
        assert "reward_x2" not in sys.modules
    package = tmp_path / "reward_x3"
    package.mkdir()
    (package / "__init__.py").write_text("from reward_x3.inner import value\n")
    (package / "inner.py").write_text("value = 3\n")
    with counted.trial():
        assert module_search.import_from(tmp_path, "reward_x3").value == 3
        assert module_search.import_from(tmp_path, "reward_x3.inner").value == 3


def test_a_module_of_a_name_that_is_taken(tmp_path: Path, count: Counter) -> None:
    """A reward module with the name of one of Python's or of a package is refused; two folders do not mix."""
    counted = count("foreign code: reward modules")
    for name in ("random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemError\n")
        with counted.trial(), pytest.raises(InputError, match="needs a name that no other module has"):
            module_search.import_from(tmp_path, name)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "reward_x4.py").write_text(f"value = {folder!r}\n")
    with counted.trial():
        assert [module_search.import_from(tmp_path / f, "reward_x4").value for f in ("a", "b", "b")] == ["a", "b", "b"]


def test_other_programs_keep_their_folder(tmp_path: Path) -> None:
    """`python -m alignfirst` drops the current directory; a program of the user that imports this package does not."""
    (tmp_path / "program.py").write_text("import alignfirst, sys\nprint(sys.path[0])\n")
    done = said([sys.executable, "-m", "program"], tmp_path)
    assert done.stdout.strip() == str(tmp_path), done.stderr
