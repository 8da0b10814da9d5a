"""Rewards that a study of own models may name: a function, a plug-in of an installed package, a sequence classifier."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.errors import InputError
from alignfirst.plugins import REWARD_FUNCTIONS
from alignfirst.store import Store
from alignfirst.study import dry_run, runner
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study
from alignfirst.worlds.user_models import resolved_inputs

METADATA = "Metadata-Version: 2.1\nName: own-rewards\nVersion: {version}\n"
POINTS = "[alignfirst.rewards]\nfew-a = own_rewards_package:few_a\nbroken = own_rewards_package:nosuch\n"
PACKAGE = "def few_a(prompts, answers):\n    return [-float(a.split().count('a')) for a in answers]\n"
ALIGN = {"algorithms": "grpo", "recipes": ["align-only"], "align.updates": 2, "align.samples": 8, "align.chunk": 8,
         "align.group_size": 4, "align.new_tokens": 4}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    made.teacher(tmp_path / "teacher")
    made.write(tmp_path / "pairs.jsonl", made.pairs(60))
    return tmp_path


def study(place: Path, **reward: Any) -> StudyConfig:
    values = {f"reward.{name}": value for name, value in reward.items()}
    return made.study(place / "teacher", place / "pairs.jsonl", **ALIGN, **values)


def played(config: StudyConfig, out: Path) -> list[dict[str, Any]]:
    result = runner.run(config, out, options=ExecutionOptions(workers=0))
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert result.status == "complete", [row["error"] for row in rows]
    return rows


def aligned_key(config: StudyConfig) -> str:
    return next(n.key for n in plan_study(config, load_world("hf")).nodes.values() if n.kind == "align")


# -- plug-ins ---------------------------------------------------------------------------------------------------------


def install(site: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.0") -> None:
    """A package with an entry point, as pip leaves it."""
    info = site / f"own_rewards-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(version=version))
    (info / "entry_points.txt").write_text(POINTS)
    (site / "own_rewards_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(REWARD_FUNCTIONS, "_loaded", {})
    forget()


def forget() -> None:
    """Entry points and facts of a study are looked up once a process."""
    REWARD_FUNCTIONS.__dict__.pop("_points", None)
    resolved_inputs._KNOWN.clear()


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    forget()
    sys.modules.pop("own_rewards_package", None)


def test_a_plug_in_is_named_as_in_other_worlds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="must be named as module:function"):
        study(place, function="few-a")
    install(place / "site", monkeypatch)
    config = study(place, function="few-a")
    rows = played(config, place / "run")
    assert all(row["reward"] <= 0 and row["reward_sd"] >= 0 for row in rows)
    found = dry_run.preflight(config, load_world("hf"))
    assert found is not None and "reward: own_rewards_package:few_a" in found.lines
    assert found.data["reward"]["plugin"] == "own-rewards==1.0"
    same_function = study(place, function="own_rewards_package:few_a")
    assert aligned_key(same_function) != aligned_key(config)  # a plug-in's version is part of what it computes


def test_another_version_of_its_package_is_another_stage(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "one", monkeypatch)
    before = aligned_key(study(place, function="few-a"))
    install(place / "two", monkeypatch, "2.0")  # found first on the path
    assert aligned_key(study(place, function="few-a")) != before


@pytest.mark.parametrize("function", ["broken", "no_such_module_abc:f", "json:nosuch", "json:__name__"])
def test_a_reward_that_is_not_there_is_refused_before_any_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    install(place / "site", monkeypatch)
    with pytest.raises(InputError, match=r"reward (function )?must be"):
        runner.run(study(place, function=function), place / "run", options=ExecutionOptions(workers=0))
    assert not (place / "run").exists()


# -- classifiers ------------------------------------------------------------------------------------------------------


def classifier(folder: Path, labels: int = 1, seed: int = 0) -> Path:
    """A tiny random one with the teacher's tokenizer."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=14, num_labels=labels, pad_token_id=1, max_position_embeddings=64, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    made.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("labels", "label"), [(1, None), (3, "LABEL_2")])
def test_a_sequence_classifier_is_a_reward(place: Path, labels: int, label: str | None) -> None:
    """Rewards of the records are what the classifier says of the answers, by plain transformers."""
    from transformers import AutoModelForSequenceClassification

    folder = classifier(place / "judge", labels)
    config = study(place, classifier=str(folder), label=label)
    rows = played(config, place / "run")
    judge = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer, seen = made.tokenizer(), []
    from alignfirst.worlds.user_models import measure

    def noting(*arguments: Any) -> Any:
        text = drawn(*arguments)
        for i in range(len(text.batch)):
            whole = "".join(tokenizer.batch_decode(text.batch.text_ids(i), skip_special_tokens=True))
            with torch.no_grad():
                logits = judge(**tokenizer(whole, return_tensors="pt")).logits[0].double()
            seen.append(float(logits[0] if label is None else logits.log_softmax(-1)[2]))
        return text

    drawn, measure.draw = measure.draw, noting
    try:
        world, store = load_world("hf"), Store(place / "run" / "store")
        node = next(n for n in plan_study(config, world).nodes.values() if n.kind == "measure")
        (found,) = world.run([node], store.get)
    finally:
        measure.draw = drawn
    assert found.meta["reward"] == pytest.approx(np.mean(seen[:12]), abs=1e-5)
    assert found.meta["reward"] == next(r["reward"] for r in rows if r["stage"] == "sft")


def test_a_classifier_is_known_by_its_content(place: Path) -> None:
    classifier(place / "judge")
    before = aligned_key(study(place, classifier=str(place / "judge")))
    classifier(place / "judge", seed=5)
    assert aligned_key(study(place, classifier=str(place / "judge"))) != before


@pytest.mark.parametrize(
    ("name", "label", "says"),
    [
        ("three", None, "LABEL_0, LABEL_1, LABEL_2"),
        ("three", "nice", "one of the classifier's"),
        ("teacher", None, "weights must fit config.json exactly"),
        ("nowhere/at/all", None, "a model is a directory"),
        ("pickled", None, "safetensors"),
    ],
)
def test_a_classifier_that_will_not_do_is_refused_before_any_work(
    place: Path, name: str, label: str | None, says: str
) -> None:
    classifier(place / "three", labels=3)
    pickled = classifier(place / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    config = study(place, classifier=name, label=label)
    with pytest.raises(InputError, match=says):
        runner.run(config, place / "run", options=ExecutionOptions(workers=0))
    assert not (place / "run").exists()
