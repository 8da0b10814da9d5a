"""Audits of own models before their alignment: what pairs tell, what draws predict, and who waits for whom."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.cli.app import app
from alignfirst.errors import ExitCode, InputError
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.store import Store
from alignfirst.study import runner
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import Plan, plan_study
from alignfirst.worlds.user_models import draws, models
from alignfirst.worlds.user_models.node_context import NodeContext
from alignfirst.worlds.user_models.world import UserModelsWorld

SHARE = "def early(prompts, answers):\n    return [sum(w in 'abcd' for w in a.split()) / 6 for a in answers]\n"
DRAWN = {"algorithms": "grpo", "align.samples": 8, "align.chunk": 8, "align.group_size": 4, "align.new_tokens": 4,
         "align.updates": 2, "audit.prompts": 6, "audit.samples": 12}  # fmt: skip
REWARDED = DRAWN | {"reward.function": "own_audit_rewards:early", "audit.target": "R >= 0.5"}
NEEDS_REWARD = "a verdict needs a reward"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    made.teacher(folder / "teacher")
    made.write(folder / "pairs.jsonl", made.pairs(60))
    (folder / "own_audit_rewards.py").write_text(SHARE)
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(place / "cache"))


def study(place: Path, **more: Any) -> StudyConfig:
    return made.study(place / "teacher", place / "pairs.jsonl", **more)


def planned(config: StudyConfig) -> Plan:
    return plan_study(config, load_world("hf"))


def played(config: StudyConfig, out: Path, **how: Any) -> tuple[list[dict[str, Any]], list[str]]:
    said: list[str] = []
    runner.run(config, out, options=ExecutionOptions(workers=0, **how), say=said.append)
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()], said


@pytest.fixture(scope="module")
def pairs_only(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[str]]:
    out = tmp_path_factory.mktemp("run") / "pairs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNFIRST_CACHE", str(place / "cache"))
        return out, *played(study(place), out)


def test_pairs_without_a_reward_are_insufficient_and_tell_what_they_can(
    pairs_only: tuple[Path, list[dict[str, Any]], list[str]], place: Path
) -> None:
    out, rows, said = pairs_only
    aligned = [row for row in rows if row["stage"] == "align"]
    for row in rows:
        assert (row["audit_verdict"] is not None) == (row["stage"] == "align")
    for row in aligned:
        assert row["audit_verdict"] == "insufficient data" and row["audit_reason"].startswith(NEEDS_REWARD)
        assert row["audit_reward"] is None and row["audit_mass"] is None and row["status"] == "ok"
    assert sum(line.startswith("audit: ") for line in said) == 2
    found = json.loads((out / "exhibits.json").read_text())["audits"]
    assert set(found) == {row["model"] for row in aligned}
    teacher, student = (found[next(r["model"] for r in aligned if r["recipe"] == name)]
                        for name in ("align-distil", "distil-align"))  # fmt: skip
    assert teacher["cost_chosen"]["value"] is None and "coverage" not in teacher, "it is its own teacher"
    assert student["cost_chosen"]["value"] is not None and student["coverage"][0]["n"] == 1
    assert student["worst"][0]["line"] >= 1 and len(student["worst"]) <= 20


def test_what_pairs_tell_is_what_the_models_say(
    pairs_only: tuple[Path, list[dict[str, Any]], list[str]], place: Path
) -> None:
    """Discrimination, margin and cost again, from stored weights and the training rows."""
    out, _, _ = pairs_only
    store, plan = Store(out / "store"), planned(study(place))
    row = next(r for r in pairs_only[1] if r["recipe"] == "distil-align" and r["stage"] == "align")
    told = json.loads((out / "exhibits.json").read_text())["audits"][row["model"]]
    audit = next(n for n in plan.nodes.values() if n.kind == "audit" and n.inputs["reference"] != n.inputs["sft"])
    context = NodeContext(plan.nodes[audit.inputs["drawn-reference"]], store.get)
    rows = context.audited(256)
    assert len(rows) == told["rows"] == len(context.rows.side(held=False)), "training rows, not held-out ones"

    def logp(role: str) -> Any:
        model = models.model_of(store.get(audit.inputs[role]), store.get, "float32")
        scored = score_rows(model, [(r.prompt, [r.chosen, r.rejected]) for r in rows])
        return np.array([[x.sum() for x in pair] for pair in scored])

    q, p = logp("reference"), logp("sft")
    assert told["discrimination"]["value"] == pytest.approx((q[:, 0] > q[:, 1]).mean())
    assert told["margin"]["value"] == pytest.approx((q[:, 0] - q[:, 1]).mean(), abs=1e-5)
    assert told["cost_chosen"]["value"] == pytest.approx((q - p)[:, 0].mean(), abs=1e-5)
    assert told["cost_rejected"]["value"] == pytest.approx((q - p)[:, 1].mean(), abs=1e-5)
    worst = min(range(len(rows)), key=lambda i: (q - p)[i, 0] / len(rows[i].chosen))
    assert told["worst"][0]["line"] == rows[worst].line


def test_one_audit_of_given_pairs_serves_all_betas_and_seeds(place: Path) -> None:
    plan = planned(study(place, beta=[0.05, 0.1, 0.3], seeds=2))
    kinds = [node.kind for node in plan.nodes.values()]
    # The teacher is the same for both seeds; each seed has its student
    assert kinds.count("audit") == kinds.count("draw") == 1 + 2 and kinds.count("align") == 2 * 2 * 3


def test_audits_change_no_key_and_settings_of_audits_change_only_theirs(place: Path) -> None:
    def keys(**more: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for key, node in planned(study(place, **REWARDED | more)).nodes.items():
            found.setdefault(node.kind, set()).add(key)
        return found

    before, after = keys(), keys(**{"audit.prompts": 5, "audit.pairs": 3, "audit.wanted": 1.0})
    assert {kind for kind in before if before[kind] != after[kind]} == {"draw", "audit"}
    named = keys(**{"audit.target": "R >= 0.6"})
    assert {kind for kind in before if before[kind] != named[kind]} == {"measure", "audit"}, "nothing is drawn again"
    other = keys(beta=0.2)
    assert before["draw"] <= other["draw"] | before["draw"] and before["audit"].isdisjoint(other["audit"])
    first = {n.inputs["drawn-sft"] for n in planned(study(place, **REWARDED)).nodes.values() if n.kind == "audit"}
    assert first <= other["draw"], "draws serve every beta"


def test_draws_are_the_models_and_weigh_what_both_models_say(place: Path, tmp_path: Path) -> None:
    rows, said = played(study(place, **REWARDED), tmp_path / "run")
    plan, store = planned(study(place, **REWARDED)), Store(tmp_path / "run" / "store")
    audit = next(n for n in plan.nodes.values() if n.kind == "audit" and n.inputs["reference"] != n.inputs["sft"])
    found = draws.audit_draws(audit.settings, audit.inputs, "reference", store.get)
    assert found.teacher is not None and found.preferred is not None and found.reference is not None
    assert len(found.reference.reward) == 6 * 12
    for drawn, role in ((found.reference, "drawn-reference"), (found.teacher, "drawn-sft")):
        text = draws.text_of(store.get(audit.inputs[role]))
        for name, logp in (("reference", drawn.logp_reference), ("sft", drawn.logp_teacher)):
            model = models.model_of(store.get(audit.inputs[name]), store.get, "float32")
            pairs = [text.batch.text_ids(i) for i in range(len(text.batch))]
            again = [float(score_rows(model, [(p, [a])])[0][0].sum()) for p, a in pairs]
            assert np.allclose(logp, again, atol=1e-4)
        tokenizer = NodeContext(plan.nodes[audit.inputs[role]], store.get).tokenizer
        texts = [
            tokenizer.decode(a, skip_special_tokens=True).split()
            for _, a in map(text.batch.text_ids, range(len(text.batch)))
        ]
        assert drawn.reward == pytest.approx([sum(w in "abcd" for w in t) / 6 for t in texts])
        assert drawn.in_target is not None and (drawn.in_target == (drawn.reward >= 0.5)).all()
    for row in rows:
        assert row["target_mass"] is not None and 0 <= row["target_mass"] <= 1, "a named target is measured"
        if row["stage"] == "align":
            assert row["audit_reward"] is not None and row["audit_mass"] is not None
    assert sum("predicted: reward" in line for line in said) == 2


def test_without_a_target_only_the_reward_is_predicted(place: Path, tmp_path: Path) -> None:
    config = study(place, **REWARDED | {"audit.target": None, "recipes": ["align-only"]})
    rows, _ = played(config, tmp_path / "run")
    row = rows[-1]
    assert row["audit_verdict"] == "insufficient data" and row["audit_reason"].startswith("no target was named")
    assert row["audit_reward"] is not None and row["audit_mass"] is None and row["target_mass"] is None
    [said] = json.loads((tmp_path / "run" / "statistics.json").read_text())["audited"]
    assert said["verdicts"]["insufficient data"] == {"n": 1, "reached": None} and said["failed"] == 0
    assert said["reward_error"] == pytest.approx(abs(row["audit_reward"] - row["reward"]))


def test_given_pairs_beside_a_reward_are_not_what_it_labelled(place: Path, tmp_path: Path) -> None:
    config = study(place, **REWARDED | {"algorithms": "dpo-offline", "recipes": ["align-only"]})
    rows, _ = played(config, tmp_path / "run")
    assert rows[-1]["audit_verdict"] == "insufficient data" and "pairs are given" in rows[-1]["audit_reason"]
    assert rows[-1]["audit_reward"] is None


def test_an_easy_target_with_draws_enough_is_a_go_and_is_trained(place: Path, tmp_path: Path) -> None:
    easy = {"recipes": ["align-only"], "beta": 0.2, "audit.target": "R >= 0.16", "audit.wanted": 0.3}
    easy |= {"audit.prompts": 12, "audit.samples": 96, "align.updates": 100}
    config = study(place, **REWARDED | easy)
    rows, said = played(config, tmp_path / "run", require_go=True)
    assert rows[-1]["audit_verdict"] == "go" and rows[-1]["audit_mass"] > 0.5
    assert any(line.startswith("the audit says go") for line in said)


@pytest.mark.parametrize("again", [False, True])
def test_alignments_wait_for_their_own_audit(
    again: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where audits are there from an earlier call, and where one fails: then it is said, and training goes on."""
    order: list[str] = []
    run = UserModelsWorld.run

    def worked(self: UserModelsWorld, nodes: Any, load: Any) -> Any:
        order.extend(node.kind for node in nodes)
        if again and nodes[0].kind == "audit":
            raise ValueError("broken")
        return run(self, nodes, load)

    monkeypatch.setattr(UserModelsWorld, "run", worked)
    config = study(place, recipes=["align-only"])
    said: list[str] = []
    runner.run(config, tmp_path / "run", options=ExecutionOptions(workers=0), say=said.append)
    assert order.index("audit") < order.index("align")
    [line] = [line for line in said if line.startswith("audit: ")]
    assert ("not audited (ValueError: broken)" in line) == again


def config_file(place: Path, folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study(place).resolved()))
    return path


def test_require_go_stops_the_command_and_without_it_the_verdict_stands_before_the_training(
    place: Path, tmp_path: Path
) -> None:
    path, out = config_file(place, tmp_path), tmp_path / "run"
    arguments = ["run", str(path), "--out", str(out), "--workers", "0", "--no-report"]
    stopped = CliRunner().invoke(app, [*arguments, "--require-go"])
    assert stopped.exit_code == ExitCode.GATE == 4, stopped.output
    assert NEEDS_REWARD in stopped.stderr and "2 of 2 alignments are not a go" in stopped.stderr
    trained = {n.key for n in planned(study(place)).nodes.values() if n.kind == "align"}
    assert not trained & Store(out / "store").keys() and not (out / "records.jsonl").exists()
    went_on = CliRunner().invoke(app, arguments)
    assert went_on.exit_code == 0, went_on.output
    assert went_on.stderr.count("audit: ") == 2 and "chosen likelier than rejected" in went_on.stderr
    assert trained <= Store(out / "store").keys()
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    tasks = [e["kind"] for e in events if e["event"] == "task"]
    assert tasks.count("audit") == 2 and tasks.index("audit") < tasks.index("align"), "audits are not made again"


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"audit.target": "reward > 1", "reward.function": "m:f"}, "audit.target must be a rule on the reward"),
        ({"audit.target": "R >= nan", "reward.function": "m:f"}, "audit.target must be a rule on the reward"),
        ({"audit.target": "R >= 0.5"}, "audit.target must come with a reward"),
        ({"audit.wanted": 1.0}, "audit.wanted must come with a reward"),
        ({"audit.samples": 1}, "audit.samples"),
    ],
)
def test_settings_that_say_nothing_are_refused(sets: dict[str, Any], words: str, place: Path) -> None:
    with pytest.raises(InputError, match=words):
        study(place, **sets)
