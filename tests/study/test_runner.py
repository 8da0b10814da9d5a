"""A whole run: records, resuming, failing in part, and leaving alone what is done."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from toy_world import WORLD, ToyAlign, ToyConfig

from alignfirst import records
from alignfirst.errors import ExitCode, InputError, RunLockedError, StoreError
from alignfirst.store import Store
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.dry_run import dry_run
from alignfirst.study.execution.estimates import NodeSeconds
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import DIGESTED, RunDir
from alignfirst.study.plan.planner import plan_study
from alignfirst.study.runner import run


def config(**settings: Any) -> ToyConfig:
    defaults = {"name": "toy", "preset": "toy", "seeds": 3, "algorithms": ("ppo", "best-of-n"), "beta": (0.1, 0.2)}
    return ToyConfig(**(defaults | settings))


def content(out: Path) -> dict[str, Any]:
    """What must not depend on how a run came about."""
    files = {name: (out / name).read_bytes() for name in DIGESTED}
    return files | {"store": Store(out / "store").digests()}


def rows_of(out: Path) -> list[records.Row]:
    manifest = RunDir(out).manifest()
    assert manifest is not None
    return records.read(out / "records.jsonl", manifest["digests"]["records.jsonl"])


def fail(monkeypatch: pytest.MonkeyPatch, **rule: Any) -> None:
    monkeypatch.setenv("TOY_FAIL", json.dumps([rule]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run(config(), out, ExecutionOptions(workers=0), command="alignfirst run toy")
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


# -- records --------------------------------------------------------------------------------------------------------


def test_every_cell_and_stage_has_its_row(finished: Path) -> None:
    rows = rows_of(finished)
    assert all(list(row) == records.columns() for row in rows)
    found = [
        (r["recipe"], r["algorithm"], r["beta"], r["seed"], r["stage"], r["stage_index"], r["final"]) for r in rows
    ]
    expected = [
        (recipe, algorithm, beta, seed, kind, i, i == 2)
        for recipe in ("align-distil", "distil-align")
        for algorithm, betas in (("ppo", (0.1, 0.2)), ("best-of-n", (None,)))
        for beta in betas
        for seed in range(3)
        for i, kind in enumerate(["sft", *(stage.kind for stage in RECIPES[recipe])])
    ]
    assert found == expected


def test_the_table_says_the_same(finished: Path) -> None:
    with (finished / "records.csv").open(newline="") as f:
        table = list(csv.DictReader(f))
    rows = rows_of(finished)
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        assert list(line) == list(row)
        assert line["beta"] == ("" if row["beta"] is None else str(row["beta"]))
        assert float(line["reward"]) == row["reward"]
        assert json.loads(line["coverage"]) == row["coverage"]


def test_varied_keys_are_columns(tmp_path: Path) -> None:
    result = run(config(seeds=1, vary={"align.gain": (0.5, 0.7)}), tmp_path, ExecutionOptions(workers=0))
    rows = rows_of(tmp_path)
    assert result.counts["rows"] == len(rows) == 2 * 6 * 3
    assert list(rows[0]) == records.columns(["align.gain"])
    assert Counter(row["align.gain"] for row in rows) == {0.5: 18, 0.7: 18}


def test_the_manifest_describes_the_run(finished: Path) -> None:
    manifest = RunDir(finished).manifest()
    assert manifest is not None
    plan = plan_study(config(), WORLD)
    assert manifest["status"] == "complete"
    assert manifest["plan_digest"] == plan.digest
    assert (manifest["name"], manifest["world"], manifest["command"]) == ("toy", "toy", "alignfirst run toy")
    assert manifest["seeds"] == [0, 1, 2]
    assert manifest["counts"] == {
        "cells": 18, "rows": 54, "rows_ok": 54, "nodes": len(plan.nodes),
        "reused": 0, "computed": len(plan.nodes), "failed": 0, "blocked": 0,
    }  # fmt: skip
    assert manifest["digests"] == {
        name: hashlib.sha256((finished / name).read_bytes()).hexdigest() for name in DIGESTED
    }
    assert manifest["hardware"]["cores"] >= 1


def test_statistics_and_exhibits_are_written(finished: Path) -> None:
    statistics = json.loads((finished / "statistics.json").read_text())
    assert {"statistics_version", "cells", "pairs", "claims", "windows"} <= statistics.keys()
    exhibits = json.loads((finished / "exhibits.json").read_text())
    assert exhibits["models"].keys() == {row["model"] for row in rows_of(finished)}


def test_exhibits_hold_five_seeds(tmp_path: Path) -> None:
    run(config(seeds=[9, 8, 7, 6, 5, 4, 3], algorithms=("ppo",), beta=(0.1,)), tmp_path, ExecutionOptions(workers=0))
    models = json.loads((tmp_path / "exhibits.json").read_text())["models"]
    assert models.keys() == {row["model"] for row in rows_of(tmp_path) if row["seed"] >= 5}


def test_timings_stand_beside_the_records(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "timings.jsonl").read_text().splitlines()]
    assert sum(line["nodes"] for line in lines) == len(plan_study(config(), WORLD).nodes)
    assert {line["label"] for line in lines if line["kind"] == "align"} == {"ppo", "best-of-n"}
    names = {"kind", "label", "nodes", "seconds", "cpu_seconds", "peak_rss_mb", "worker"}
    assert all(line.keys() == names for line in lines)


# -- the same bytes, however they came about -----------------------------------------------------------------------


def test_workers_do_not_show_in_the_result(finished: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        assert run(config(), tmp_path / str(workers), ExecutionOptions(workers=workers)).exit_code == ExitCode.OK
        assert content(tmp_path / str(workers)) == content(finished)


def test_a_run_that_failed_in_part_ends_like_one_that_did_not(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    fail(monkeypatch, kind="align", seed=1, how="raise")
    first = run(config(), out, ExecutionOptions(workers=0))
    assert (first.status, first.exit_code) == ("partial", ExitCode.PARTLY_FAILED)
    monkeypatch.delenv("TOY_FAIL")
    second = run(config(), out, ExecutionOptions(workers=0))
    assert second.counts["reused"] == first.counts["computed"]
    assert second.counts["computed"] == first.counts["failed"] + first.counts["blocked"]
    assert second.exit_code == ExitCode.OK
    assert content(out) == content(finished)


def test_a_run_with_nothing_to_do_touches_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [copy, *copy.rglob("*")]}
    monkeypatch.setenv("TOY_LOG", str(copy.parent / "log"))
    result = run(config(), copy, ExecutionOptions(workers=2))
    assert (result.nothing_to_do, result.status, result.exit_code) == (True, "complete", ExitCode.OK)
    assert result.counts["rows"] == 54
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [copy, *copy.rglob("*")]} == before
    assert not (copy.parent / "log").exists()


@pytest.mark.parametrize("name", DIGESTED[1:])
def test_an_output_that_was_changed_is_written_again_from_the_store(finished: Path, copy: Path, name: str) -> None:
    (copy / name).write_text("changed")
    result = run(config(), copy, ExecutionOptions(workers=0))
    assert (result.nothing_to_do, result.counts["computed"]) == (False, 0)
    assert content(copy) == content(finished)
    assert run(config(), copy, ExecutionOptions(workers=0)).nothing_to_do


def test_damage_in_the_store_is_repaired_and_told(finished: Path, copy: Path) -> None:
    shard = max((copy / "store").glob("*.shard"), key=lambda p: p.stat().st_size)
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    (copy / "manifest.json").unlink()
    result = run(config(), copy, ExecutionOptions(workers=0))
    assert result.counts["computed"] == 1
    assert len(result.notes) == 1
    assert shard.name in result.notes[0]
    assert content(copy) == content(finished)


def test_a_lost_shard_is_noticed_although_the_manifest_is_complete(finished: Path, copy: Path) -> None:
    next((copy / "store").glob("*.shard")).unlink()
    result = run(config(), copy, ExecutionOptions(workers=0))
    assert result.counts["computed"] > 0
    assert content(copy) == content(finished)


def test_another_version_writes_its_own_records(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignfirst.version.__version__", "999")
    result = run(config(), copy, ExecutionOptions(workers=0))
    assert (result.nothing_to_do, result.counts["computed"]) == (False, 0)


# -- failures -------------------------------------------------------------------------------------------------------


def statuses(out: Path, **where: Any) -> Counter[tuple[str, str]]:
    rows = (r for r in rows_of(out) if all(r[k] == v for k, v in where.items()))
    return Counter((row["stage"], row["status"]) for row in rows)


def test_what_stands_behind_a_failure_is_blocked_and_siblings_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, kind="align", seed=1, algorithm="ppo", beta=0.1, how="failure")
    result = run(config(), tmp_path, ExecutionOptions(workers=2))
    assert result.exit_code == ExitCode.PARTLY_FAILED
    hit = {"seed": 1, "algorithm": "ppo", "beta": 0.1}
    assert statuses(tmp_path, recipe="align-distil", **hit) == {
        ("sft", "ok"): 1, ("align", "failed"): 1, ("distil", "blocked"): 1,
    }  # fmt: skip
    assert statuses(tmp_path, recipe="distil-align", **hit)[("align", "failed")] == 1
    bad = [row for row in rows_of(tmp_path) if row["status"] != "ok"]
    assert len(bad) == 3
    assert all("asked to fail" in row["error"] for row in bad)
    assert all(row["reward"] is None for row in bad)
    counts = result.counts
    assert counts["failed"] == 2
    assert counts["nodes"] == counts["reused"] + counts["computed"] + counts["failed"] + counts["blocked"]
    assert counts["rows_ok"] == counts["rows"] - 3


def test_nothing_that_succeeds_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, kind="sft", how="stage")
    result = run(config(), tmp_path, ExecutionOptions(workers=0))
    assert (result.status, result.exit_code) == ("partial", ExitCode.FAILED)
    assert statuses(tmp_path) == {("sft", "failed"): 18, ("align", "blocked"): 18, ("distil", "blocked"): 18}
    assert RunDir(tmp_path).changed(RunDir(tmp_path).manifest() or {}) == []


def test_a_measurement_that_fails_does_not_block_the_next_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, kind="measure", beta=0.1, how="raise")
    run(config(seeds=1), tmp_path, ExecutionOptions(workers=0))
    hit = {"algorithm": "ppo", "beta": 0.1, "recipe": "align-distil"}
    assert statuses(tmp_path, **hit) == {("sft", "ok"): 1, ("align", "failed"): 1, ("distil", "ok"): 1}
    (row,) = [r for r in rows_of(tmp_path) if r["status"] == "failed" and r["recipe"] == "align-distil"]
    assert row["error"].startswith("measurement: ZeroDivisionError")
    assert "ZeroDivisionError" in (tmp_path / "errors.log").read_text()


def test_a_prediction_that_fails_is_told_but_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, kind="predict", beta=0.1, how="failure")
    result = run(config(seeds=1), tmp_path, ExecutionOptions(workers=0))
    assert result.exit_code == ExitCode.PARTLY_FAILED
    rows = rows_of(tmp_path)
    assert {row["status"] for row in rows} == {"ok"}
    hit = [row for row in rows if row["beta"] == 0.1]
    assert {row["error"] for row in hit} == {"prediction: asked to fail"}
    assert {row["predicted_reward"] for row in hit} == {None}
    assert all(row["error"] is None for row in rows if row["beta"] != 0.1)


# -- refusals -------------------------------------------------------------------------------------------------------


def test_another_study_is_refused_and_unharmed(copy: Path) -> None:
    before = content(copy)
    for call in (run, dry_run):
        with pytest.raises(InputError, match=r"holds one study.*Choose another --out, or remove"):
            call(config(align=ToyAlign(gain=0.9)), copy, 0)
    assert content(copy) == before


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"empty directory.*thesis\.tex"):
        run(config(), tmp_path, ExecutionOptions(workers=0))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a directory"):
        run(config(), tmp_path / "file", ExecutionOptions(workers=0))
    with pytest.raises(StoreError, match="choose another --out"):
        run(config(), tmp_path / "file" / "run", ExecutionOptions(workers=0))


def test_negative_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers must be >= 0"):
        run(config(), tmp_path / "run", ExecutionOptions(workers=-1))
    assert not (tmp_path / "run").exists()


def test_a_held_directory_is_refused_at_once_and_names_the_holder(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    with run_dir.lock():
        with pytest.raises(RunLockedError, match=r"in use by process \d+ on \S+ since \d{4}-"):
            run(config(), tmp_path / "run", ExecutionOptions(workers=0))
        assert (RunDir(tmp_path / "run").holder() or {})["pid"] > 0
    assert run_dir.holder() is None
    assert run(config(), tmp_path / "run", ExecutionOptions(workers=0)).exit_code == ExitCode.OK


def test_what_a_dead_holder_left_does_not_matter(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.lock").write_text("")
    (out / "run.lock.json").write_text(json.dumps({"pid": 1, "host": "gone", "started": "long ago"}))
    (out / "config.yaml.7-x.tmp").write_text("half")
    assert run(config(seeds=1), out, ExecutionOptions(workers=0)).exit_code == ExitCode.OK
    assert not list(out.glob("*.tmp"))
    assert not (out / "run.lock.json").exists()


# -- progress, dry runs, costs --------------------------------------------------------------------------------------


def test_progress_counts_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, kind="align", seed=1, how="failure")
    events: list[tuple[int, int, str, int]] = []
    run(config(), tmp_path, ExecutionOptions(workers=2), lambda *event: events.append(event))
    total = len(plan_study(config(), WORLD).nodes)
    assert events[0] == (0, total, "", 0)
    assert events[-1][:2] == (total, total)
    assert [e[0] for e in events] == sorted(e[0] for e in events)
    assert {e[2] for e in events[1:]} == {"sft", "align", "distil", "measure", "predict"}
    assert {e[3] for e in events} <= {0, 1, 2}


def test_a_dry_run_counts_and_touches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = dry_run(config(), out, 2)
    assert not out.exists()
    assert (plan.cells, plan.rows, plan.cached) == (18, 54, 0)
    assert plan.nodes == len(plan_study(config(), WORLD).nodes)
    assert {stage.kind for stage in plan.stages} == {"sft", "align", "distil", "measure", "predict"}
    assert plan.seconds == pytest.approx(sum(stage.seconds for stage in plan.stages) / 2)
    assert all(stage.seconds > 0 for stage in plan.stages)


def test_a_dry_run_sees_what_is_stored(copy: Path) -> None:
    next((copy / "store").glob("*.shard")).unlink()
    before = sorted(copy.rglob("*"))
    plan = dry_run(config(), copy, 1)
    assert 0 < plan.nodes - plan.cached < plan.nodes
    assert sum(stage.to_run for stage in plan.stages) == plan.nodes - plan.cached
    assert sorted(copy.rglob("*")) == before


def test_costs_come_from_earlier_timings_before_tables() -> None:
    nodes = plan_study(config(), WORLD).nodes.values()
    ppo = next(n for n in nodes if n.kind == "align" and n.settings["algorithm"] == "ppo")
    best, distil = (
        next(n for n in nodes if n.kind == "align" and n.settings["algorithm"] == "best-of-n"),
        next(n for n in nodes if n.kind == "distil"),
    )
    seconds = ((10, 90.0), (10, 1.0), (10, 1.0))  # the first compiled
    timings = [{"kind": "align", "label": "ppo", "nodes": n, "seconds": s} for n, s in seconds]
    seconds = NodeSeconds(WORLD, {}, timings)
    assert seconds(ppo) == seconds(best) == 0.1
    assert seconds(distil) == WORLD.price(distil, {}).flops / 64


def test_timings_survive_a_line_that_was_cut(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    line = json.dumps({"kind": "sft", "label": "", "nodes": 1, "seconds": 1.0})
    (tmp_path / "timings.jsonl").write_text(line + "\n" + line[:9])
    run_dir.append("timings.jsonl", line + "\n")
    assert len(run_dir.timings()) == 2
