"""Processes that share a run: what is refused, what is ordered, what is printed. Without any process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
import yaml
from toy_world import WORLD, ToyConfig, ToyWorld
from typer.testing import CliRunner, Result

from alignfirst import process_environment
from alignfirst.cli.app import app
from alignfirst.errors import InputError
from alignfirst.store import Store
from alignfirst.study.execution import launcher, process_group
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, run_task
from alignfirst.study.plan.planner import plan_study


class Sharing(ToyWorld):
    together = frozenset({"align"})


class Pair:
    """The first of two processes; the other carries out the same orders beside it."""

    rank, size = 0, 2

    def __init__(self, store: Path) -> None:
        self.store, self.orders = Store(store), list[Any]()

    def broadcast(self, value: Any) -> Any:
        self.orders.append(value)
        return value

    def gather_objects(self, mine: Any) -> list[Any]:
        order = self.orders[-1]
        if len(order) < 2:
            return [mine, None]
        nodes = [process_group.Node(*node) for node in order[1]["nodes"]]
        report = run_task(WORLD, self.store, order[1]["task"], nodes)
        return [mine, {"task": report.task, "digests": report.digests}]


def test_trainings_are_shared_and_other_tasks_are_dealt_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(tmp_path)
    monkeypatch.setattr(process_group, "import_module", lambda name: SimpleNamespace(team=lambda: pair))
    plan = plan_study(ToyConfig(seeds=4, beta=[0.1, 0.2]), WORLD)
    schedule = Schedule(plan.nodes, plan.nodes, WORLD, lambda node: 1.0)
    pool = process_group.ProcessGroupPool(Sharing(), Store(tmp_path), 30.0)
    while not schedule.finished:
        while pool.idle and (task := schedule.next(pool.idle)) is not None:
            pool.submit(task)
        outcome = pool.wait()
        assert isinstance(outcome.report, Report) and outcome.report.task == outcome.task.id
        schedule.succeed(outcome.report.digests)
    assert Store(tmp_path).keys() == plan.nodes.keys()
    kinds = [[task["nodes"][0][0] for task in order] for order in pair.orders]
    assert ["align"] in kinds and ["measure", "measure"] in kinds
    assert not any("align" in order and len(order) > 1 for order in kinds)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    node = SimpleNamespace(settings={"trainer": "trl"})
    with pytest.raises(InputError, match="worlds hf and chain, got world toy"):
        process_group.check(WORLD, {})
    with pytest.raises(InputError, match=r"align\.trainer=native"):
        process_group.check(Sharing(), {"key": node})  # type: ignore[dict-item]
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match="know no DeepSpeed, got ACCELERATE_USE_DEEPSPEED=true"):
        process_group.check(Sharing(), {})


def test_of_an_fsdp_profile_that_is_taken_which_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (process_environment.SHARD, process_environment.FSDP, *process_environment.FSDP_KEYS):
        monkeypatch.delenv(name, raising=False)
    assert not process_environment.sharded()
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    process_group.check(Sharing(), {})  # of no profile
    monkeypatch.setenv(process_environment.FSDP, "true")
    assert process_environment.sharded()
    with pytest.raises(InputError, match="got fsdp_offload_params: true"):
        process_group.check(Sharing(), {})
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "false")
    process_group.check(Sharing(), {})
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(InputError, match=r"not weights, got fsdp_version: 1.*examples/fsdp\.yaml"):
        process_group.check(Sharing(), {})
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "true")
    with pytest.raises(InputError, match=r"Set fsdp_reshard_after_forward: false"):
        process_group.check(Sharing(), {})


def test_what_a_process_holds_of_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight, gradient and two moments: from one process to eight that share out moments, and gradients, too."""
    for name in ("WORLD_SIZE", process_environment.PROCESSES, process_environment.SHARD, process_environment.FSDP):
        monkeypatch.setenv(name, "")
    assert process_environment.numbers_per_weight() == 4.0
    ExecutionOptions(processes=8, shard=False).write_environment(Path())
    assert process_environment.numbers_per_weight() == 2.25
    ExecutionOptions(processes=8, shard=True).write_environment(Path())
    assert process_environment.numbers_per_weight() == 1.375
    monkeypatch.setenv("WORLD_SIZE", "4")  # a launcher knows better
    assert process_environment.numbers_per_weight() == 1.75


def test_the_shipped_profile_is_one_that_is_taken() -> None:
    profile = yaml.safe_load((Path(__file__).parents[2] / "examples" / "fsdp.yaml").read_text())
    assert profile["distributed_type"] == "FSDP" and profile["mixed_precision"] == "no"
    assert {key: str(value).lower() for key, value in profile["fsdp_config"].items()} == dict(
        process_environment.FSDP_KEYS.values()
    )


def test_one_process_is_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in process_environment.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    assert process_environment.launched() == 1 and process_environment.leads()
    for name, value in zip(process_environment.LAUNCHED, ("1", "2", "localhost"), strict=True):
        monkeypatch.setenv(name, value)
    assert process_environment.launched() == 2 and not process_environment.leads()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mog-quick", "--processes", 2), "worlds hf and chain, got world mog"),
        (("smollm2", "--processes", 0), "--processes must be >= 2"),
        (("smollm2", "--print-launch"), "--processes must be >= 2"),
        (("smollm2", "--processes", 2, "--workers", 2), "goes without --engine ray and --workers"),
        (("mog-quick", "--ray-address", "auto"), "Add --engine ray"),
        (("smollm2", "--shard"), "--shard goes with --processes"),
        (("mog-quick", "--processes", 2, "--shard"), "worlds hf and chain, got world mog"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    arguments: tuple[object, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (process_environment.SHARD, process_environment.PROCESSES):
        monkeypatch.setenv(name, "")  # put back after it
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", ["", " --shard"])
def test_the_command_is_printed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    for name in (process_environment.SHARD, process_environment.PROCESSES):
        monkeypatch.setenv(name, "")  # put back after it
    out = str(tmp_path / "two words")
    arguments = ["run", "smollm2", "--out", out, "--processes", "8", *more.split(), "--print-launch"]
    monkeypatch.setattr(sys, "argv", ["alignfirst", *arguments])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert process_environment.sharded() == bool(more)
    start = "accelerate launch --num_processes 8 --multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no"
    assert result.stdout.startswith(start)
    assert result.stdout.strip().endswith(f"-m alignfirst run smollm2 --out '{tmp_path}/two words' --processes 8{more}")
    assert not list(tmp_path.iterdir())


def test_the_exit_code_is_told_beside_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launcher.CODE, raising=False)
    assert launcher.leave(3) == 3
    monkeypatch.setenv(launcher.CODE, str(tmp_path / "code"))
    assert launcher.leave(3) == 0
    assert json.loads((tmp_path / "code").read_text()) == 3
