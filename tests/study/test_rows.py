"""Rows of the records: every number stands in the row of its own stage."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from toy_world import WORLD, ToyConfig

from alignfirst import records
from alignfirst.store import Store
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.plan.planner import plan_study
from alignfirst.study.runner import run

CONFIG = ToyConfig(
    name="toy",
    preset="toy",
    seeds=2,
    algorithms=("ppo", "best-of-n"),
    beta=(0.1, 0.2),
    recipes=("align-distil", "distil-align", "align-distil-align", "distil-only"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run(CONFIG, out, ExecutionOptions(workers=0))
    return out


def test_rows_hold_what_the_nodes_gave_and_null_elsewhere(finished: Path) -> None:
    plan, store = plan_study(CONFIG, WORLD), Store(finished / "store")
    rows = iter(records.read(finished / "records.jsonl"))
    for cell in plan.cells:
        for stage in cell.stages:
            row = next(rows)
            assert (row["world"], row["preset"], row["status"], row["error"]) == ("toy", "toy", "ok", None)
            assert row["model"] == stage.model
            measured, model = store.get(stage.measure).meta, store.get(stage.model).meta
            assert {name: row[name] for name in measured} == measured
            assert {name: row[name] for name in model} == model
            if stage.kind != "align":
                assert row["kl_to_reference"] is row["target_draws"] is row["exact_reward"] is None
    assert next(rows, None) is None


def test_a_row_holds_the_prediction_of_its_own_stage(finished: Path) -> None:
    """The toy world predicts the mean of sft plus the stage's index, and half over one plus the index."""
    store, rows = Store(finished / "store"), iter(records.read(finished / "records.jsonl"))
    for cell in plan_study(CONFIG, WORLD).cells:
        mean = float(store.get(cell.stages[0].model).arrays["x"].mean())
        for index in range(len(cell.stages)):
            row = next(rows)
            assert row["stage_index"] == index
            assert (row["predicted_reward"], row["predicted_target_mass"]) == (mean + index, 0.5 / (1 + index))
