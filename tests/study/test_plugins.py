"""Plug-ins: found by name, imported only then, part of what a stage is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignfirst import worlds
from alignfirst.plugins import REWARD_FUNCTIONS
from alignfirst.study.config.study_config import from_mapping
from alignfirst.study.plan.planner import plan_study

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
POINTS = """[alignfirst.algorithms]
{name} = {module}:THING
[alignfirst.recipes]
grpo-like = {module}:THING
"""
RUN = ["-m", "alignfirst"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(EXAMPLE)], check=True, capture_output=True)
    return target


def fake(folder: Path, module: str, name: str = "wrong") -> None:
    info = folder / "fake_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(POINTS.format(name=name, module=module))


def run(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=280)


def test_a_package_adds_an_algorithm_and_a_recipe_to_a_study(installed: Path, tmp_path: Path) -> None:
    sets = [
        "algorithms=dr-grpo,grpo",
        "recipes=distil-align,distil-align-distil",
        "beta=0.1",
        "seeds=2",
        "align.updates=20",
        "sft.samples=500",
        "distil.samples=500",
    ]
    options = [part for s in sets for part in ("--set", s)]
    done = run("run", "mog-quick", *options, "--out", "run", "--no-report", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/records.jsonl").read_text().splitlines()]
    made = {(r["recipe"], r["algorithm"]): [] for r in rows}
    for r in rows:
        made[r["recipe"], r["algorithm"]].append(r["stage"])
        assert r["status"] == "ok"
    assert made["distil-align-distil", "dr-grpo"] == ["sft", "distil", "align", "distil"] * 2
    by = {a: [r["reward"] for r in rows if r["algorithm"] == a and r["stage"] == "align"] for a in ("grpo", "dr-grpo")}
    assert by["grpo"] != by["dr-grpo"]


def test_without_the_package_its_names_are_unknown(tmp_path: Path) -> None:
    refused = run("run", "mog-quick", "--set", "algorithms=dr-grpo", site=tmp_path, cwd=tmp_path)
    assert refused.returncode == 2 and "grpo" in refused.stderr


def test_an_algorithm_of_another_version_is_another_stage(installed: Path, tmp_path: Path) -> None:
    code = (
        "from alignfirst.study.plan import planner as plan\n"
        "from alignfirst.study.config import preset_files as presets\n"
        "from alignfirst.study.execution.worker import load_world\n"
        "from alignfirst.theory.objectives import ALGORITHMS\n"
        "def keys():\n"
        "    c = presets.load('mog-quick', ['algorithms=dr-grpo,grpo', 'beta=0.1', 'seeds=1'])\n"
        "    p = plan.plan_study(c, load_world('mog'))\n"
        "    return {n.key: n.settings.get('plugin') for n in p.nodes.values() if n.kind == 'align'}\n"
        "before = keys(); ALGORITHMS.origin = lambda name: 'example==2' if name == 'dr-grpo' else None\n"
        "after = keys(); import json; print(json.dumps([before, after]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *(p for p in sys.path if p)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    before, after = json.loads(done.stdout)
    assert sorted(map(str, before.values())) == [
        "None",
        "None",
        "alignfirst-example==1.0.0",
        "alignfirst-example==1.0.0",
    ]
    assert sorted(map(str, after.values())) == ["None", "None", "example==2", "example==2"]
    assert len(before.keys() & after.keys()) == 2  # grpo's


@pytest.mark.parametrize(("body", "says"), [("raise RuntimeError('boom')", "boom"), ("THING = 3", "is a int")])
def test_a_broken_plugin_is_refused_with_its_package(tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "broken_module.py").write_text(body)
    fake(tmp_path, "broken_module")
    refused = run("run", "mog-quick", "--set", "algorithms=wrong", "--out", "r", site=tmp_path, cwd=tmp_path)
    assert refused.returncode == 2
    assert says in refused.stderr and "fake-plugin==0.1" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "r").exists()


def test_a_plugin_nobody_names_is_not_imported_and_cannot_take_a_name(tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text("open('ran', 'w')")
    fake(tmp_path, "canary", name="grpo")
    sets = ["--set", "algorithms=grpo", "--set", "seeds=1", "--set", "beta=0.1", "--dry-run"]
    done = run("run", "mog-quick", *sets, site=tmp_path, cwd=tmp_path)
    assert done.returncode == 0 and not (tmp_path / "ran").exists()


def test_the_example_reward() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("example", EXAMPLE / "src/alignfirst_example/__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.distinct_words(["p", "p"], ["a b a b", ""]) == [0.5, 0.0]


def test_the_audit_predicts_nothing_for_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.theory.objectives import ALGORITHMS

    monkeypatch.setitem(ALGORITHMS.builtin, "dr-grpo", ALGORITHMS["grpo"])
    refusal = Plan("dr-grpo", 0.1, 100).refusal
    assert refusal is not None and "no experiment" in refusal
    assert Plan("grpo", 0.1, 100).refusal is None


def reward_of_version(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / version / "fake_plugin.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-plugin\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[alignfirst.rewards]\nfew-a = no_such_module:few_a\n")
    monkeypatch.syspath_prepend(str(folder / version))  # found before what was there
    vars(REWARD_FUNCTIONS).pop("_points", None)  # entry points are looked up once a process


def keys_by_kind(reward: str) -> dict[str, set[str]]:
    config = from_mapping({"world": "grammar", "reward.kind": reward, "seeds": 1, "beta": 0.1, "algorithms": ["grpo"]})
    keys: dict[str, set[str]] = {}
    for key, node in plan_study(config, worlds.get("grammar")).nodes.items():
        keys.setdefault(node.kind, set()).add(key)
    return keys


def test_a_reward_of_another_version_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported for it: the module that the plug-in names does not exist."""
    try:
        reward_of_version(tmp_path, "1.0", monkeypatch)
        first = keys_by_kind("few-a")
        reward_of_version(tmp_path, "2.0", monkeypatch)
        second = keys_by_kind("few-a")
    finally:
        vars(REWARD_FUNCTIONS).pop("_points", None)
    assert first["sft"] == second["sft"] and len(first["align"]) == len(second["align"]) == 2
    assert not first["align"] & second["align"]
