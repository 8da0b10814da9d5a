"""Scheduling, without processes; then processes that compute, fail and die."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_world import NAME, WORLD, ToyConfig, ToyWorld

from alignfirst.errors import AlignfirstError, StoreError
from alignfirst.nodes import Artefact, Failure, Load, Node, Outcome
from alignfirst.store import Store
from alignfirst.study.execution.engine import execute
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task, load_world, run_task
from alignfirst.study.plan.planner import Plan, plan_study


def planned(seeds: int = 3) -> Plan:
    return plan_study(ToyConfig(seeds=seeds, algorithms=("ppo", "dpo-offline"), beta=(0.1, 0.2)), WORLD)


def schedule_of(plan: Plan, stored: Sequence[str] = (), world: Any = WORLD) -> Schedule:
    return Schedule(plan.nodes, plan.nodes.keys() - set(stored), world, lambda node: 1.0)


# -- the schedule ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_node_is_settled_once_after_its_inputs_whatever_happens(data: st.DataObject) -> None:
    plan = planned(2)
    stored = {k for k, n in plan.nodes.items() if n.kind == "sft"} if data.draw(st.booleans()) else set()
    schedule, idle = schedule_of(plan, stored), data.draw(st.integers(1, 4))
    rng = data.draw(st.randoms(use_true_random=False))
    done, running = set(stored), list[Task]()
    while not schedule.finished:
        while len(running) < idle and (task := schedule.next(idle - len(running))):
            assert len({WORLD.group(node) for node in task.nodes}) == 1
            assert len(task.nodes) <= WORLD.batch_size(task.nodes[0])
            for node in task.nodes:
                assert set(node.inputs.values()) <= done
                assert node.key not in done | schedule.failures.keys() | schedule.blocked.keys()
            running.append(task)
        assert running, "nothing runs and nothing is ready, yet work is left"
        task = running.pop(rng.randrange(len(running)))
        if rng.random() < 0.1:
            schedule.died(task, "SIGKILL")
            continue
        failed = [node.key for node in task.nodes if rng.random() < 0.05]
        for key in failed:
            schedule.fail(key, "bad luck")
        good = [node.key for node in task.nodes if node.key not in failed]
        schedule.succeed(good)
        done.update(good)
    assert done | schedule.failures.keys() | schedule.blocked.keys() == plan.nodes.keys()
    assert len(done) + len(schedule.failures) + len(schedule.blocked) == len(plan.nodes)
    for key, reason in schedule.blocked.items():
        inputs = plan.nodes[key].inputs.values()
        assert any(i in schedule.failures or i in schedule.blocked for i in inputs)
        assert "bad luck" in reason or "died" in reason


def test_one_bucket_is_shared_among_idle_workers() -> None:
    schedule = schedule_of(planned(4))
    first, second = schedule.next(2), schedule.next(1)
    assert first is not None
    assert second is not None
    assert [len(first.nodes), len(second.nodes)] == [2, 2]
    assert schedule.next(1) is None, "everything else waits for sft"


def test_of_full_tasks_the_one_with_the_longest_way_goes_first() -> None:
    plan = planned(4)
    schedule = schedule_of(plan, [k for k, n in plan.nodes.items() if n.kind == "sft"])
    task = schedule.next(1)
    assert task is not None
    assert len(task.nodes) == WORLD.batch_size(task.nodes[0])
    assert task.kind == "align", "a distil and measurements stand behind it"


def test_a_node_that_kills_workers_is_found_by_halving() -> None:
    plan = planned(4)
    schedule = schedule_of(plan)
    victim = next(iter(plan.nodes))
    deaths = 0
    while victim not in schedule.failures:
        task = schedule.next(1)
        assert task is not None
        if any(node.key == victim for node in task.nodes):
            deaths += 1
            schedule.died(task, "SIGSEGV")
        else:
            schedule.succeed([node.key for node in task.nodes])
    assert deaths == 3  # of 4 nodes, of 2, alone
    assert list(schedule.failures) == [victim]
    assert "SIGSEGV" in schedule.failures[victim]


def test_a_lone_node_is_tried_twice() -> None:
    plan = planned(1)
    schedule = schedule_of(plan)
    for attempt in range(2):
        assert not schedule.failures
        task = schedule.next(1)
        assert task is not None
        assert task.attempt == attempt
        schedule.died(task, "SIGKILL")
    assert len(schedule.failures) == 1
    assert schedule.finished, "all the rest stands behind this sft"


# -- one task -------------------------------------------------------------------------------------------------------


class Picky(ToyWorld):
    """Raises when the batch holds seed 1; counts nodes that were computed in the end."""

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        if any(node.settings["seed"] == 1 for node in nodes):
            raise KeyError("seed 1")
        return super().run(nodes, load)


class Short(ToyWorld):
    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        return super().run(nodes, load)[:-1]


def sft_nodes(count: int = 4) -> list[Node]:
    return [n for n in plan_study(ToyConfig(seeds=count), WORLD).nodes.values() if n.kind == "sft"]


def test_an_exception_fails_the_node_that_raises_and_tells_where(tmp_path: Path) -> None:
    nodes = sft_nodes()
    report = run_task(Picky(), Store(tmp_path), 1, nodes)
    assert report.failures == {nodes[1].key: "KeyError: 'seed 1'"}
    assert report.digests.keys() == {nodes[i].key for i in (0, 2, 3)}
    assert len(report.traces) == 1
    assert "raise KeyError" in report.traces[0]
    assert report.fatal is None


def test_a_world_that_loses_outcomes_is_told(tmp_path: Path) -> None:
    report = run_task(Short(), Store(tmp_path), 1, sft_nodes(2))
    assert not report.digests
    assert all("returned 0 outcomes for 1 nodes" in reason for reason in report.failures.values())


@pytest.mark.parametrize(
    ("how", "reason"),
    [("failure", "asked to fail"), ("stage", "asked to stop"), ("raise", "ZeroDivisionError: asked"), ("nan", "JSON")],
)
def test_failures_keep_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str) -> None:
    monkeypatch.setenv("TOY_FAIL", json.dumps([{"kind": "sft", "seed": 2, "how": how}]))
    nodes = sft_nodes()
    report = run_task(WORLD, Store(tmp_path), 1, nodes)
    assert list(report.failures) == [nodes[2].key]
    assert reason in report.failures[nodes[2].key]
    assert len(report.digests) == 3


def test_a_task_reports_time_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.02")
    report = run_task(WORLD, Store(tmp_path), 1, sft_nodes(2))
    assert report.seconds >= 0.04
    assert report.cpu_seconds < report.seconds
    assert report.peak_rss_mb > 5


def test_a_damaged_input_fails_only_those_that_need_it(tmp_path: Path) -> None:
    plan = planned(2)
    store = Store(tmp_path)
    sfts = [n for n in plan.nodes.values() if n.kind == "sft"]
    run_task(WORLD, store, 1, sfts)
    shard = next(tmp_path.glob("*.shard"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # in the payload of the larger key
    shard.write_bytes(content)
    lost = max(node.key for node in sfts)
    students = [n for n in plan.nodes.values() if n.kind == "distil" and n.inputs["teacher"] in {s.key for s in sfts}]
    report = run_task(WORLD, Store(tmp_path), 2, students)
    assert report.fatal is None
    assert set(report.failures) == {n.key for n in students if n.inputs["teacher"] == lost}
    assert set(report.digests) == {n.key for n in students if n.inputs["teacher"] != lost}


def test_a_store_that_refuses_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = run_task(WORLD, Store(tmp_path / "file"), 1, sft_nodes(1))
    assert report.fatal is not None
    assert "cannot be written" in report.fatal


def test_worlds_are_found_by_name_or_reference() -> None:
    assert load_world(NAME) is WORLD
    with pytest.raises(AlignfirstError, match="world must be one of"):
        load_world("nowhere")


# -- processes ------------------------------------------------------------------------------------------------------


def children() -> set[int]:
    """Live child processes of this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def executed(plan: Plan, root: Path, workers: int, reference: str = NAME) -> tuple[Schedule, list[tuple[Task, Report]]]:
    schedule, reports = schedule_of(plan), list[tuple[Task, Report]]()
    before = children()
    try:
        execute(
            schedule, WORLD, reference, Store(root), ExecutionOptions(workers), lambda t, r, *_: reports.append((t, r))
        )
    finally:
        assert children() == before, "no process is left"
    return schedule, reports


def test_any_number_of_workers_leaves_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    plan, digests = planned(), []
    for workers in (0, 1, 3):
        schedule, reports = executed(plan, tmp_path / str(workers), workers)
        assert schedule.computed == len(plan.nodes)
        assert sum(len(task.nodes) for task, _ in reports) == len(plan.nodes), "nothing is computed twice"
        digests.append(Store(tmp_path / str(workers)).digests())
        assert digests[-1] == {k: d for _, report in reports for k, d in sorted(report.digests.items())}
    assert digests[0] == digests[1] == digests[2]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3 * len(plan.nodes)
    assert all(line.endswith(" 1") for line in lines[len(plan.nodes) :]), "one thread a worker"


def test_a_killed_worker_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = tmp_path / "kill"
    kill.write_text("")
    monkeypatch.setenv("TOY_KILL", str(kill))
    schedule, _ = executed(planned(), tmp_path / "s", 2)
    assert not kill.exists()
    assert not schedule.failures
    assert Store(tmp_path / "s").keys() == planned().nodes.keys()


def test_a_node_that_always_crashes_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAIL", json.dumps([{"kind": "sft", "seed": 1, "how": "die"}]))
    plan = planned()
    schedule, _ = executed(plan, tmp_path, 2)
    (victim,) = schedule.failures
    assert plan.nodes[victim].settings["seed"] == 1
    assert "SIGSEGV" in schedule.failures[victim]
    assert schedule.computed == len(plan.nodes) * 2 // 3, "two seeds of three are whole"
    assert schedule.computed + len(schedule.blocked) + 1 == len(plan.nodes)


def test_a_worker_that_cannot_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(AlignfirstError, match="world no_such_module:W cannot be loaded"):
        executed(planned(1), tmp_path, 1, "no_such_module:W")


def test_a_full_disk_ends_the_run_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another --out"):
        executed(planned(1), tmp_path / "file" / "store", 2)


def test_outcomes_are_what_the_protocol_says() -> None:
    """The toy is a World as far as these tests use it: artefacts or failures, in order."""
    outcomes = WORLD.run(sft_nodes(2), lambda key: Artefact())
    assert [type(o) for o in outcomes] == [Artefact, Artefact]
    assert isinstance(WORLD._fail("failure"), Failure)
