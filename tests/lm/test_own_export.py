"""Exports of own models: whole or not at all, the same model without this package, a card of true words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")
pytest.importorskip("peft", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.api import Run, load
from alignfirst.errors import InputError, StageFailure
from alignfirst.store import Store
from alignfirst.study import runner
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.worlds.user_models import model_folder as exporting
from alignfirst.worlds.user_models.card import code

# Names as the world has them: markup, a table's and a path's own characters, another alphabet, an option
TEACHER, DATA, RUN = "a|b `c` <img src=x onerror=alert(1)>", "pairs '; # {{x}}.jsonl", "-run \u202e<b>|é"

READER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, checks = sys.argv[1], json.loads(sys.stdin.read())
model = AutoModelForCausalLM.from_pretrained(sys.argv[2] if len(sys.argv) > 2 else folder, dtype=torch.float32)
if len(sys.argv) > 2:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
found = []
for check in checks:
    ids, at = check["prompt"] + check["answer"], len(check["prompt"])
    with torch.no_grad():
        logp = model.eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    found.append(sum(float(logp[i - 1, ids[i]]) for i in range(at, len(ids))))
drawn = model.generate(**tokenizer("a b", return_tensors="pt"), max_new_tokens=3, min_new_tokens=3)
print(json.dumps([found, drawn.shape[1], "alignfirst" in sys.modules]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both orders with adapters in the align stages, the student trained whole."""
    folder = tmp_path_factory.mktemp("export")
    patch = pytest.MonkeyPatch()
    patch.setenv("ALIGNFIRST_CACHE", str(folder / "cache"))
    made.teacher(folder / TEACHER, made.TEMPLATE)
    made.write(folder / DATA, [*made.pairs(80), b"spoilt"])
    study = made.study(folder / TEACHER, folder / DATA, **{"lora.rank": 2, "align.updates": 6, "sft.steps": 2})
    assert runner.run(study, folder / RUN, options=ExecutionOptions(workers=0)).status == "complete"
    patch.undo()
    return load(folder / RUN)


def checks(run: Run, recipe: str, stage: int) -> list[dict[str, Any]]:
    row = next(r for r in run.records if (r["recipe"], r["stage_index"]) == (recipe, stage))
    found: list[dict[str, Any]] = Store(run.path / "store").get(row["model"]).meta["check"]
    return found


def read(folder: Path, wanted: list[dict[str, Any]], *base: Path) -> None:
    """What plain transformers (and peft) make of a folder is what was recorded when the model was trained."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, str(folder), *map(str, base)],
        input=json.dumps(wanted), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, length, ours = json.loads(done.stdout)
    assert len(found) == 4 and not ours and length == 5
    assert found == pytest.approx([c["logp"] for c in wanted], abs=1e-4)


def test_a_clean_process_reads_the_students_that_were_trained(run: Run, tmp_path: Path) -> None:
    read(run.export("align-distil", tmp_path / "whole"), checks(run, "align-distil", 2))
    merged = run.export("distil-align", tmp_path / "merged")
    assert not list(merged.glob("adapter*"))
    read(merged, checks(run, "distil-align", 2))


def test_adapters_stand_alone_on_the_stage_that_the_card_names(run: Run, tmp_path: Path) -> None:
    alone = run.export("distil-align", tmp_path / "adapter", adapter=True)
    assert {f.name for f in alone.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert not (alone / "model.safetensors").exists()
    card = (alone / "README.md").read_text()
    assert "They belong to the model of stage 1, which `--stage 1` exports." in card
    read(alone, checks(run, "distil-align", 2), run.export("distil-align", tmp_path / "base", stage=1))
    of_sft = run.export("align-distil", tmp_path / "of-sft", stage=1, adapter=True)
    assert "They belong to the model of stage 0" in (of_sft / "README.md").read_text()
    with pytest.raises(InputError, match="only where one was trained"):
        run.export("align-distil", tmp_path / "no", adapter=True)
    assert not (tmp_path / "no").exists()


def test_the_card_is_true_and_no_name_breaks_it(run: Run, tmp_path: Path) -> None:
    card = (run.export("distil-align", tmp_path / "m") / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"library_name", "pipeline_tag", "tags"}  # no base_model: a folder is none
    final = next(r for r in run.records if r["recipe"] == "distil-align" and r["final"])
    assert "81 read, 80 kept" in text and "dropped: 1 `not JSON`" in text
    for name in ("logp_chosen", "held_out_margin"):
        low, high = final["intervals"][name]
        assert f"| {final[name]:.4g} | {low:.4g} to {high:.4g} |" in text
    for row in run.records:
        if row["recipe"] == "distil-align":
            assert row["model"] in text
    assert code(str(run.path.parent / TEACHER)) in text  # as code: no markup of theirs is seen
    body = [line for line in text.splitlines() if not line.startswith("    ")]  # settings are indented: verbatim
    assert not any("<img" in line.replace(code(str(run.path.parent / TEACHER)), "") for line in body)
    widths: dict[int, set[int]] = {}
    for i, line in enumerate(body):
        if line.startswith("|"):
            start = next(k for k in range(i, -1, -1) if not body[k - 1].startswith("|"))
            widths.setdefault(start, set()).add(line.count("|"))
    assert len(widths) == 3 and all(len(found) == 1 for found in widths.values())


@pytest.mark.parametrize("name", ["../../etc", "align-distil/..", "", "\x00", "align-distil\n", "-h", "nosuch", "é"])
def test_a_recipe_that_is_none_of_the_runs_writes_nothing(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="recipe must be one of this run's"):
        run.export(name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["with space", "-dash", "ü|`x`", "a" * 255, "deep/er/still", "\u202etxt"])
def test_a_folder_may_have_any_name(run: Run, tmp_path: Path, name: str) -> None:
    found = run.export("align-distil", tmp_path / name)
    assert found == tmp_path / name and (found / "model.safetensors").is_file()
    assert [p.name for p in found.parent.iterdir()] == [found.name]


def test_nothing_is_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(InputError, match="an empty folder"):
            run.export("align-distil", tmp_path / name)
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert (run.export("align-distil", tmp_path / "empty") / "config.json").is_file()


def test_an_export_that_does_not_give_the_recorded_numbers_is_not_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(folder: Path) -> Any:
        model = made.lm.load(str(folder)).model
        with torch.no_grad():
            next(model.parameters()).mul_(1.5)
        return model

    monkeypatch.setattr(exporting.named_models, "load_folder", other)
    with pytest.raises(StageFailure, match="other log-probabilities"):
        run.export("align-distil", tmp_path / "out")
    assert not list(tmp_path.iterdir())
