"""`alignfirst audit` of a grammar study's transformer: exact rewards, posterior hits, log-probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="language models need torch")
pytest.importorskip("transformers", reason="language models need transformers")

from typer.testing import CliRunner

import alignfirst
from alignfirst.api import run
from alignfirst.cli.app import app
from alignfirst.store import Store
from alignfirst.worlds.grammar.draws import GrammarDrawing
from alignfirst.worlds.grammar.world import WORLD, GrammarWorld

STUDY = """
world: grammar
seeds: 1
beta: 0.1
algorithms: [grpo]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 4, target_weight: 0.3}
sft: {hidden: 8, layers: 1, heads: 2, intermediate: 8, steps: 30, batch: 32}
distil: {hidden: 4, heads: 1, intermediate: 4, steps: 4, batch: 16, samples: 64}
align: {updates: 8, samples: 16, group_size: 4}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "study.yaml").write_text(STUDY)
    return str(tmp_path / "study.yaml")


def test_a_student_is_audited_beside_its_sft_model(study: str) -> None:
    arguments = ["audit", "--reference", f"{study}:distil-align/distil", "--samples", "256", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    told: Any = json.loads(result.stdout)
    reference, [plan] = told["reference"], told["plans"]
    assert (reference["draws"], reference["teacher_draws"], plan["rollouts"]) == (256, 256, 8 * 16)
    total = reference["weights_total"]
    assert abs(total["value"] - 1) < 5 / 1.96 * (total["high"] - total["low"]) / 2  # draws and scores agree
    assert CliRunner().invoke(app, arguments).stdout == result.stdout


def test_scores_are_those_of_the_model_that_drew(study: str, tmp_path: Path) -> None:
    finished = run(study, out=tmp_path / "run", workers=0, set={"recipes": ["distil-align"]})
    store = Store(finished.path / "store")
    sft, student = (store.get(row["model"]) for row in finished.records[:2])
    settings = WORLD.drawing_settings(finished.config, seed=0)
    own = GrammarDrawing(settings, student, sft).sample(student, 64, np.random.default_rng(0))
    other = GrammarDrawing(settings, sft, student)  # the same texts, scored instead of drawn
    again = other.sample(student, 64, np.random.default_rng(0))
    assert own.logp_reference is not None and again.logp_teacher is not None
    np.testing.assert_allclose(own.logp_reference, again.logp_teacher, atol=1e-4)
    np.testing.assert_array_equal(own.reward, again.reward)


def test_a_second_audit_at_another_beta_trains_and_draws_nothing(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = f"{study}:distil-align/distil"
    first = alignfirst.audit(reference, samples=64)

    def refuse(*_: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(GrammarWorld, "run", refuse)
    second = alignfirst.audit(reference, samples=64, plans=alignfirst.Plans(betas=[0.3]))
    assert [judged.plan.beta for judged in second.judged] == [0.3]
    assert second.evidence is not None and first.evidence is not None
    assert second.evidence.mass == first.evidence.mass


def test_a_study_says_what_the_audit_of_its_references_says(study: str, tmp_path: Path) -> None:
    """The same numbers to the last bit: one drawing and one judge serve both."""
    finished = run(study, out=tmp_path / "run", workers=0)
    for recipe, stage in (("align-distil", "sft"), ("distil-align", "distil")):
        arguments = ["audit", "--reference", f"{finished.path}:{recipe}/{stage}", "--json"]
        [plan] = json.loads(CliRunner().invoke(app, arguments).stdout)["plans"]
        [row] = [r for r in finished.records if (r["recipe"], r["stage"]) == (recipe, "align")]
        assert (row["audit_verdict"], row["audit_reason"]) == (plan["verdict"], plan["because"])
        assert row["audit_reward"] == plan["reward"]["value"] is not None
        assert row["audit_mass"] == plan["target_mass"]["value"]
