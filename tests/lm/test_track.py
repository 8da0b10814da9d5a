"""Trackers: off unless asked for, told every update, and of no weight in what is computed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

for _name in ("torch", "transformers", "accelerate", "trl"):
    pytest.importorskip(_name, reason="needs alignfirst[lm]")

import accelerate.tracking
from transformers import TrainerCallback
from transformers.integrations import integration_utils
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst import process_environment
from alignfirst.cli.app import app
from alignfirst.store import Store

NAME = "tensorboard"
told: list[tuple[str, Any]] = []


class Fake(accelerate.tracking.GeneralTracker):
    """What accelerate asks of a tracker."""

    name, requires_logging_directory, main_process_only = NAME, True, False
    broken_at: int | None = None

    def __init__(self, run_name: str, logging_dir: str, **_: Any) -> None:
        super().__init__()
        self.run_name = run_name
        told.append(("start", [run_name, logging_dir]))

    @property
    def tracker(self) -> Any:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        told.append(("settings", values))

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if step == self.broken_at:
            raise RuntimeError("the service is down")
        told.append((self.run_name, [step, values]))

    def finish(self) -> None:
        told.append(("finish", self.run_name))


class FakeCallback(TrainerCallback):
    """What transformers asks of one."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        told.append(("trl", [state.global_step, logs]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    for name in (process_environment.TRACKERS, process_environment.TRACKER_FOLDER, "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, "")  # as it was again after the test
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, NAME, Fake)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: [NAME])
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, NAME, FakeCallback)
    told.clear()
    made.teacher(tmp_path / "teacher")
    made.write(tmp_path / "pairs.jsonl", made.pairs(60))
    values = made.study(
        tmp_path / "teacher", tmp_path / "pairs.jsonl", **{"align.updates": 4, "sft.steps": 2}
    ).resolved()
    (tmp_path / "study.yaml").write_text(json.dumps({k: v for k, v in values.items() if k not in ("preset", "vary")}))
    return tmp_path


def run(out: str, *more: str) -> Any:
    return CliRunner().invoke(app, ["run", "study.yaml", "--out", out, "--workers", "0", "--no-report", *more])


def test_a_tracker_is_told_every_update_and_changes_nothing(place: Path) -> None:
    assert run("plain").exit_code == 0
    assert not told  # off by default
    done = run("watched", "--report-to", NAME)
    assert done.exit_code == 0, done.output
    assert (place / "watched" / "records.jsonl").read_bytes() == (place / "plain" / "records.jsonl").read_bytes()
    started = [values for what, values in told if what == "start"]
    assert sorted(name.split("-")[1] for name, _ in started) == ["align", "align", "distil", "distil", "sft"]
    assert {folder for _, folder in started} == {str(place / "watched" / "trackers")}
    assert sum(what == "finish" for what, _ in told) == 5
    rows = [json.loads(line) for line in (place / "watched" / "records.jsonl").read_text().splitlines()]
    store = Store(place / "watched" / "store")
    for key in {row["model"] for row in rows}:
        kind = next(row["stage"] for row in rows if row["model"] == key)
        seen = [values for what, values in told if what == f"alignfirst-{kind}-{key[:8]}"]
        losses = store.get(key).meta["curves"]["loss"]
        assert [step for step, _ in seen] == list(range(len(losses)))
        assert [values["loss"] for _, values in seen] == pytest.approx(losses, rel=1e-5)


def test_a_tracker_that_fails_is_left_and_the_training_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Fake, "broken_at", 1)
    assert run("run", "--set", "recipes=align-only", "--set", "sft.steps=0", "--report-to", NAME).exit_code == 0
    assert next(what for what, _ in told if what != "settings") == "start" and told[-1][1][0] == 0
    assert "the tracker tensorboard is left" in caplog.text and "the service is down" in caplog.text


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of its own arguments
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trl_gets_the_same_names(place: Path) -> None:
    sets = ("--set", "recipes=align-only", "--set", "align.trainer=trl", "--set", "sft.steps=0")
    assert run("plain", *sets).exit_code == 0
    assert not told
    assert run("watched", *sets, "--report-to", NAME).exit_code == 0
    steps = [step for what, (step, logs) in told if what == "trl" and "loss" in logs]
    assert steps == [1, 2, 3, 4]
    assert (place / "watched" / "records.jsonl").read_bytes() == (place / "plain" / "records.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("names", "says"),
    [(["nosuch"], "one that accelerate and TRL know"), (["wandb"], "must be installed"), (["aim"], "TRL know")],
)
def test_a_tracker_that_is_not_there_is_refused_before_any_work(place: Path, names: list[str], says: str) -> None:
    refused = run("run", *[x for name in names for x in ("--report-to", name)])
    assert refused.exit_code == 2 and says in refused.output
    assert not (place / "run").exists()


def test_other_worlds_have_no_trackers(place: Path) -> None:
    refused = CliRunner().invoke(app, ["run", "mog-quick", "--report-to", NAME, "--out", "run"])
    assert refused.exit_code == 2 and "own models" in refused.output
