"""The pool of Ray tasks without Ray: a stand-in computes in this process, and fails as Ray does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from fake_ray import FakeRay, RayError, RayTaskError
from toy_world import NAME, WORLD, ToyConfig

from alignfirst.errors import AlignfirstError, InputError
from alignfirst.nodes import Artefact
from alignfirst.store import Store
from alignfirst.study.execution import options, ray_pool
from alignfirst.study.execution.cancel_file import POLL, CancelFile, interruptible
from alignfirst.study.execution.engine import execute
from alignfirst.study.execution.options import Cluster, ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.plan.planner import plan_study
from alignfirst.study.runner import run


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeRay], FakeRay]:
    monkeypatch.setattr(options, "find_spec", lambda name: object())

    def use(ray: FakeRay) -> FakeRay:
        monkeypatch.setattr(ray_pool, "connect", lambda *_: ray)
        return ray

    return use


Use = Callable[[FakeRay], FakeRay]


def worked(root: Path, cluster: Cluster) -> Schedule:
    plan = plan_study(ToyConfig(seeds=2, beta=[0.1, 0.2]), WORLD)
    schedule = Schedule(plan.nodes, plan.nodes, WORLD, lambda node: 1.0)
    execute(schedule, WORLD, NAME, Store(root), ExecutionOptions(100, cluster=cluster), lambda *_: None)
    return schedule


def test_records_are_those_of_this_machine(tmp_path: Path, use: Use) -> None:
    ray = use(FakeRay())
    config = ToyConfig(seeds=2, beta=[0.1, 0.2])
    run(config, tmp_path / "here", ExecutionOptions(workers=0))
    run(config, tmp_path / "there", ExecutionOptions(cluster=Cluster()))
    for name in ("records.jsonl", "records.csv", "statistics.json", "exhibits.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert ray.shut == 1


@pytest.mark.parametrize(("cpus", "each", "room"), [(2, 1.0, 2), (3, 0.5, 6), (5, 2.0, 2), (0, 1.0, 1)])
def test_as_many_tasks_at_once_as_there_is_room_for(
    tmp_path: Path, use: Use, caplog: pytest.LogCaptureFixture, cpus: float, each: float, room: int
) -> None:
    ray = use(FakeRay(cpus))
    worked(tmp_path, Cluster(cpus=each))
    assert ray.most == room
    assert ("no node of the cluster has 1 cores" in caplog.text) == (cpus == 0)
    assert ray.asked["num_cpus"] == each
    assert ray.asked["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == str(max(1, int(each)))


def test_no_task_fits_without_a_gpu_for_it() -> None:
    assert ray_pool.slots_of({"CPU": 8.0}, SimpleNamespace(cpus=1.0, gpus=1.0)) == 0  # type: ignore[arg-type]
    assert ray_pool.slots_of({"CPU": 8.0, "GPU": 2.0}, SimpleNamespace(cpus=1.0, gpus=0.5)) == 4  # type: ignore[arg-type]


def test_a_task_lost_for_good_is_tried_again_in_halves(tmp_path: Path, use: Use) -> None:
    def lose_first(number: int, text: str) -> None:
        if number == 1:
            raise RayError("the node died")

    use(FakeRay(trouble=lose_first))
    schedule = worked(tmp_path, Cluster())
    assert not schedule.failures
    assert Store(tmp_path).keys() == schedule.nodes.keys()


def test_what_fails_before_any_work_ends_the_run_in_words(tmp_path: Path, use: Use) -> None:
    def no_package(number: int, text: str) -> None:
        raise RayTaskError("Traceback ...\nModuleNotFoundError: No module named 'alignfirst'")

    ray = use(FakeRay(trouble=no_package))
    with pytest.raises(AlignfirstError, match="a Ray task failed: ModuleNotFoundError: No module named 'alignfirst'"):
        worked(tmp_path, Cluster())
    assert ray.shut == 1


def test_a_disk_that_nodes_do_not_share_is_noticed(tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool.count_invisible, "__defaults__", (0.0,))
    ray = use(FakeRay())
    root = tmp_path / "here"
    monkeypatch.setattr(ray, "get", lambda n: ray_pool.compute(ray.texts.pop(n).replace(str(root), f"{root}-other")))
    with pytest.raises(AlignfirstError, match="file system that all nodes of the cluster share"):
        worked(root, Cluster())


def test_an_artefact_that_appears_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, writer = "a" * 32, Store(tmp_path)
    monkeypatch.setattr(ray_pool.time, "sleep", lambda _: writer.put_many([(key, Artefact())]))
    assert ray_pool.count_invisible(Store(tmp_path), [key], 60.0) == 0
    assert ray_pool.count_invisible(Store(tmp_path), [key, "b" * 32], 0.0) == 1


@pytest.mark.parametrize(
    ("asked", "rule"), [({"cpus": 0.0}, "cpus"), ({"gpus": 1.5}, "gpus"), ({"gpus": -1.0}, "gpus")]
)
def test_what_ray_cannot_give_is_refused(asked: dict[str, float], rule: str, use: Use) -> None:
    with pytest.raises(InputError, match=f"{rule} of a task"):
        Cluster(**asked)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'alignfirst\[ray\]'"):
        Cluster()


def test_no_workers_at_all_is_refused(tmp_path: Path, use: Use) -> None:
    use(FakeRay())
    with pytest.raises(InputError, match="workers on a cluster must be >= 1"):
        run(ToyConfig(), tmp_path / "run", ExecutionOptions(0, cluster=Cluster()))
    assert not (tmp_path / "run").exists()


def test_nodes_get_the_paths_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    paths = ray_pool.own_paths().split(os.pathsep)
    assert str(tmp_path) in paths
    assert not any("site-packages" in path or path.endswith(".zip") for path in paths)


def test_ray_is_not_imported_unless_asked_for() -> None:
    code = "import sys; import alignfirst.cli.app, alignfirst.study.runner; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_ray_says_is_one_line_on_stderr(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ray_pool.print_ray_messages(
        {"lines": ["The node with id 5 was lost.\n  [state-dump] 1\n" + 99 * "[state-dump]\n"]}, False
    )
    assert caplog.messages == [caplog.messages[0]] and "\n" not in caplog.messages[0]
    assert caplog.messages[0].startswith("note: Ray: The node with id 5 was lost. ") and len(caplog.messages[0]) < 200
    assert not capsys.readouterr().out


def work() -> None:
    """For half a minute, unless it is interrupted."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)
    pytest.fail("it was not interrupted")


def test_a_task_leaves_once_its_driver_says_so(tmp_path: Path) -> None:
    cancel = CancelFile(tmp_path / "store")
    with interruptible(cancel.path):
        time.sleep(2 * POLL)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible(cancel.path):
        cancel.request()
        work()
    assert time.monotonic() - begin < 10
    cancel.close()
    assert not list((tmp_path / "store").iterdir())
    with interruptible(cancel.path):  # a file that cannot be seen says nothing
        time.sleep(2 * POLL)


def test_a_task_that_was_told_to_leave_stores_nothing_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a task does: what it had begun is done again."""
    files = list[CancelFile]()

    def interrupted(world: Any, store: Store, message: Any, seconds: float) -> None:
        files[0].request()
        work()

    monkeypatch.setattr(ray_pool, "serve", interrupted)
    files.append(CancelFile(tmp_path / "store"))
    start = {
        "world": NAME,
        "store": str(tmp_path / "store"),
        "seconds": 30.0,
        "cancel": str(files[0].path),
        "paths": [],
    }
    assert ray_pool.compute(json.dumps(start | {"message": {"task": 0, "nodes": []}})) == ""
    assert not Store(tmp_path / "store").keys()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "ray://127.0.0.1:1"])
def test_where_nobody_listens_is_found_at_once(address: str) -> None:
    begin = time.monotonic()
    with pytest.raises(OSError):
        ray_pool.check_port(address)
    assert time.monotonic() - begin < 5


def test_an_address_without_a_port_is_left_to_ray() -> None:
    for address in (None, "auto", "local"):
        ray_pool.check_port(address)
