"""Tasks of lm-eval on a model in memory, and as a part of what is measured of own models. Nothing is fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

for _name in ("torch", "transformers", "datasets"):
    pytest.importorskip(_name, reason="needs alignfirst[lm]")
pytest.importorskip("lm_eval", reason="needs alignfirst[lm-eval]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.io import lm_eval_tasks
from alignfirst.lm.models import load as lm
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.study import runner
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of lm-eval and of what it imports
]

TASK = """
task: {name}  # as lm-eval shows it
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
QUESTIONS = [
    {"question": f"{a} {b}", "choices": ["a", "j", "e"], "answer": n % 3}
    for n, (a, b) in enumerate(zip("abcdefghi", "jbcdefgha", strict=True))
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    made.write(tmp_path / "questions.jsonl", QUESTIONS)
    path = tmp_path / "tasks" / "letters.yaml"
    path.parent.mkdir()
    path.write_text(TASK.format(name="letters", data=tmp_path / "questions.jsonl"))
    return path


def by_hand(model: Any) -> float:
    """The share of questions whose right choice is the likeliest, each choice after a space."""
    tokenizer, right = made.tokenizer(), 0
    for row in QUESTIONS:
        prompt = tokenizer(row["question"])["input_ids"]
        choices = [tokenizer(choice)["input_ids"] for choice in row["choices"]]
        logp = [float(x.sum()) for x in score_rows(model, [(prompt, choices)])[0]]
        right += logp.index(max(logp)) == row["answer"]
    return right / len(QUESTIONS)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_task_of_ones_own_says_what_counting_by_hand_says(task: Path, seed: int) -> None:
    model = lm.build(made.SIZES, seed)
    found = lm_eval_tasks.evaluate(model, made.tokenizer(), [str(task)])
    assert found["letters"]["acc"] == pytest.approx(by_hand(model))
    assert lm_eval_tasks.evaluate(model, made.tokenizer(), [str(task)], limit=3)["letters"]["sample_len"] == 3


def test_tasks_are_a_part_of_every_stages_measurement(task: Path, tmp_path: Path) -> None:
    made.teacher(tmp_path / "teacher")
    data = made.write(tmp_path / "pairs.jsonl", made.pairs(60))
    more = {"recipes": ["align-only"], "measure.tasks": [str(task)], "align.updates": 2}
    config = made.study(tmp_path / "teacher", data, **more)
    assert runner.run(config, tmp_path / "run", options=ExecutionOptions(workers=0)).status == "complete"
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert rows[0]["lm_eval"]["letters"]["acc"] == pytest.approx(by_hand(made.lm.load(tmp_path / "teacher").model))
    assert all(0 <= row["lm_eval"]["letters"]["acc"] <= 1 for row in rows)
    before = plan_study(config, load_world("hf")).nodes
    task.write_text(task.read_text() + "description: other\n")
    again = made.study(tmp_path / "teacher", data, **more, **{"align.chunk": 4})
    after = plan_study(again, load_world("hf")).nodes
    changed = {before[key].kind for key in before.keys() - after.keys()}
    assert changed == {"measure"}  # known by its content, and nothing is trained anew for it


def test_tasks_that_are_not_there_are_refused_before_any_work(task: Path, tmp_path: Path) -> None:
    made.teacher(tmp_path / "teacher")
    data = made.write(tmp_path / "pairs.jsonl", made.pairs(60))
    nameless = task.with_name("nameless.yaml")
    nameless.write_text("dataset_path: json\n")
    for name, says in ((str(tmp_path / "no.yaml"), "must be there"), (str(nameless), "must say its name")):
        config = made.study(tmp_path / "teacher", data, **{"measure.tasks": [name]})
        with pytest.raises(InputError, match=says):
            runner.run(config, tmp_path / "run", options=ExecutionOptions(workers=0))
    with pytest.raises(InputError, match="one that lm-eval knows"):
        lm_eval_tasks.check(["no_such_task_abc"])
    assert not (tmp_path / "run").exists()


def test_a_task_that_fails_fails_the_stage_with_words(task: Path) -> None:
    task.write_text(task.read_text().replace("questions.jsonl", "nowhere.jsonl"))
    with pytest.raises(StageFailure, match=r"lm-eval could not run .*letters\.yaml"):
        lm_eval_tasks.evaluate(lm.build(made.SIZES, 1), made.tokenizer(), [str(task)])
