"""Audits in a study: which alignments get one, whose draws they rest on, and what becomes of them in the records."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import numpy as np
import pytest
from toy_world import WORLD, ToyAlign, ToyConfig, ToyPreferences, ToyWorld

from alignfirst import records
from alignfirst.auditing import audit_nodes
from alignfirst.auditing.audit_nodes import AuditDraws, run_audit
from alignfirst.auditing.constants import GATES, PULL_AT
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.errors import ExitCode, GateError, InputError
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome
from alignfirst.store import Store
from alignfirst.study import runner
from alignfirst.study.execution import engine
from alignfirst.study.execution.local_pool import InlinePool
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.pool import Outcome as TaskOutcome
from alignfirst.study.output.record_rows import Rows
from alignfirst.study.plan.planner import Plan, plan_study
from alignfirst.world import World

N = 4_000
MASS = {"sft": 0.2, "student": 0.05, "other": 0.4}  # of the target, by model


class Audited(ToyWorld):
    """The toy world with models that hit a target worth 1 with a known probability; misses are worth 0."""

    versions: Mapping[Any, int] = {**WORLD.versions, "audit": 1}

    def settings(self, kind: Any, config: Any, **context: Json) -> dict[str, Json]:
        return (World if kind == "audit" else ToyWorld).settings(self, kind, config, **context)

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        return {"n": N, "seed": seed}

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        return run_audit(self.draw, nodes, load) if nodes[0].kind == "audit" else super().run(nodes, load)

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        hit = np.arange(settings["n"]) < round(MASS[inputs[role]] * settings["n"])
        even = np.zeros(settings["n"])
        return AuditDraws(Sample(hit.astype(float), hit, even, even), None, np.ones(10))


class Preferences(ToyPreferences):
    labels: str = "bradley-terry"
    flip: float = 0.0
    scale: float = 1.0
    pairs: int = 500


class Align(ToyAlign):
    samples: int = 100
    ppo_epochs: int = 4


class Config(ToyConfig):
    align: Align = Align()
    preferences: Preferences = Preferences()


def planned(**settings: Any) -> Plan:
    defaults = {"seeds": 2, "algorithms": ("reinforce",), "beta": (0.1,), "recipes": ("align-distil", "distil-align")}
    return plan_study(Config(**(defaults | settings)), Audited())


def test_every_planned_alignment_is_audited_and_no_training_depends_on_it() -> None:
    recipes = ("align-distil", "distil-align-anchored", "align-distil-align", "distil-only")
    plan = planned(recipes=recipes, algorithms=("reinforce", "dpo-offline"))
    for cell in plan.cells:
        for stage in cell.stages:
            assert (stage.audit is not None) == (stage.kind == "align")
            if stage.audit is not None:
                model, audit = plan.nodes[stage.model], plan.nodes[stage.audit]
                assert audit.inputs == {**model.inputs, "sft": cell.stages[0].model}
                assert audit.settings["plan"]["beta"] == cell.beta
    plain = plan_study(Config(seeds=2, recipes=recipes, algorithms=("reinforce", "dpo-offline"), beta=(0.1,)), WORLD)
    assert plain.nodes.keys() == {key for key, node in plan.nodes.items() if node.kind != "audit"}
    assert {stage.audit for cell in plain.cells for stage in cell.stages} == {None}


def test_alignments_that_the_audit_does_not_predict_draw_nothing_and_say_why() -> None:
    plan = planned(algorithms=("ipo", "best-of-n", "sft-preferred"))
    assert "audit" not in {node.kind for node in plan.nodes.values()}
    reasons = {c.algorithm: s.unaudited for c in plan.cells for s in c.stages if s.kind == "align"}
    assert "margin" in reasons["ipo"] and "no reference" in reasons["best-of-n"]
    hard = planned(algorithms=("reinforce", "dpo-online"), preferences=Preferences(labels="hard"))
    reasons = {c.algorithm: s.unaudited for c in hard.cells for s in c.stages if s.kind == "align"}
    assert reasons["reinforce"] is None and "hard labels" in reasons["dpo-online"]


def test_rows_of_refused_alignments_say_so_and_why() -> None:
    plan = planned(seeds=1, algorithms=("reinforce", "ipo"))
    verdict = {"audit_reward": 0.5, "audit_mass": 0.6, "audit_verdict": "go", "audit_reason": "so it is"}
    metas = {"measure": {"reward": 1.0}, "audit": verdict}
    artefacts = {k: Artefact(meta=metas.get(n.kind, {})) for k, n in plan.nodes.items() if n.kind != "predict"}
    said: dict[tuple[str, str], set[Any]] = {}
    for row in Rows(plan, "toy", artefacts, {}, {}).build():
        said.setdefault((row["stage"], row["algorithm"]), set()).add(tuple(row[name] for name in audit_nodes.COLUMNS))
    [refused] = said.pop(("align", "ipo"))
    assert refused[:3] == (None, None, "refused") and "margin" in refused[3]
    assert said.pop(("align", "reinforce")) == {(0.5, 0.6, "go", "so it is")}
    assert set.union(*said.values()) == {(None,) * 4}, "only alignments have a verdict"


@pytest.mark.parametrize(
    ("algorithm", "share", "expected"),
    [("reinforce", 1.0, 800), ("reinforce", 0.25, 200), ("ppo", 1.0, 200), ("dpo-offline", 1.0, 1000)],
)
def test_rollouts_are_the_responses_that_the_stage_will_draw(algorithm: str, share: float, expected: int) -> None:
    assert Audited().rollouts(Config(), algorithm, share) == expected


def verdict(algorithm: str = "reinforce", beta: float = 0.3, rollouts: int = 100, **inputs: str) -> Mapping[str, Any]:
    plan = {"algorithm": algorithm, "beta": beta, "rollouts": rollouts, "labels": "bradley-terry"}
    node = Node("audit", {"n": N, "plan": plan, "rules": ""}, {"sft": "sft", **inputs})
    [found] = Audited().run([node], lambda key: Artefact())
    assert isinstance(found, Artefact)
    return found.meta


def formula(start: float, drawn: float, reference: float, algorithm: str, beta: float, rollouts: int) -> float:
    """m0 of the start, plus the gate on hits of the drawing model, times the way to the reference's optimum."""
    gate = GATES[algorithm]
    odds = reference / (1 - reference) * math.exp(1 / max(beta, gate.floor))
    g = 1 - math.exp(-rollouts * drawn / (gate.hits * (beta / PULL_AT) ** gate.pull))
    return start + g * (odds / (1 + odds) - start)


@pytest.mark.parametrize(
    ("algorithm", "roles"),
    [
        ("reinforce", {"initial": "student", "reference": "student"}),
        ("reinforce", {"initial": "student", "reference": "sft"}),
        ("dpo-offline", {"initial": "student", "reference": "student", "pairs": "sft"}),
        ("dpo-offline", {"initial": "student", "reference": "sft", "pairs": "sft"}),
        ("dpo-offline", {"initial": "student", "reference": "sft", "pairs": "other"}),
    ],
)
def test_hits_are_of_the_model_that_draws_and_the_optimum_is_the_reference_s(
    algorithm: str, roles: dict[str, str]
) -> None:
    start, reference = MASS[roles["initial"]], MASS[roles["reference"]]
    drawn = MASS[roles.get("pairs", roles["initial"])]
    found = verdict(algorithm, 0.3, 100, **roles)
    assert found["audit_mass"] == pytest.approx(formula(start, drawn, reference, algorithm, 0.3, 100), rel=1e-9)
    assert found["audit_reward"] == pytest.approx(found["audit_mass"])  # hits are worth 1


def test_a_reference_that_would_do_does_not_help_a_start_that_never_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchored: audited by its reference alone, this would be a go."""
    monkeypatch.setitem(MASS, "student", 0.0)
    assert verdict(beta=0.1, rollouts=10_000, initial="sft", reference="sft")["audit_verdict"] == "go"
    found = verdict(beta=0.1, rollouts=10_000, initial="student", reference="sft")
    assert found["audit_verdict"] != "go" and found["audit_mass"] == pytest.approx(0, abs=1e-6)


def test_a_verdict_does_not_depend_on_what_is_judged_beside_it() -> None:
    inputs = {"sft": "sft", "initial": "student", "reference": "student"}
    plans = [
        {"algorithm": a, "beta": b, "rollouts": 1_000, "labels": "bradley-terry"}
        for a in ("grpo", "dpo-offline")
        for b in (0.1, 0.5)
    ]
    nodes = [Node("audit", {"n": N, "plan": plan, "rules": ""}, inputs) for plan in plans]
    together = Audited().run(nodes, lambda key: Artefact())
    assert together == [Audited().run([node], lambda key: Artefact())[0] for node in nodes]


def test_a_changed_constant_asks_for_new_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignfirst.auditing import constants

    before = planned()
    monkeypatch.setitem(constants.GATES, "reinforce", replace(constants.GATES["reinforce"], hits=4))
    audit_nodes.rules.cache_clear()
    after = planned()
    audit_nodes.rules.cache_clear()
    assert {n.kind for k, n in before.nodes.items() if k not in after.nodes} == {"audit"}
    assert before.digest != after.digest


def test_an_audit_that_fails_takes_nothing_from_what_was_measured() -> None:
    plan = planned(seeds=1)
    artefacts = {key: Artefact(meta={"reward": 1.0} if node.kind == "measure" else {"updates": 1})
                 for key, node in plan.nodes.items() if node.kind not in ("audit", "predict")}  # fmt: skip
    failed = {key: "asked to" for key, node in plan.nodes.items() if node.kind == "audit"}
    for row in Rows(plan, "toy", artefacts, failed, {}).build():
        assert row["status"] == "ok" and row["reward"] == 1.0 and row["audit_verdict"] is None
        assert row["error"] == ("audit: asked to" if row["stage"] == "align" else None)


def test_runs_of_an_older_schema_are_read_with_nulls(tmp_path: Path) -> None:
    old = {"schema_version": 2, "recipe": "align-only", "stage": "align", "reward": 0.5}
    (tmp_path / "records.jsonl").write_text(json.dumps(old) + "\n")
    [row] = records.read(tmp_path / "records.jsonl")
    assert old.items() <= row.items() and set(row) == set(records.columns())
    assert {row[name] for name in audit_nodes.COLUMNS} == {None}


def test_the_store_of_a_run_without_audits_serves_one_with_them(tmp_path: Path) -> None:
    """What a run of an older version trained is trained no second time."""
    store = Store(tmp_path)
    before = plan_study(Config(seeds=1, beta=(0.1,), algorithms=("reinforce",)), WORLD)
    store.put_many([(key, Artefact(meta={})) for key in before.nodes])
    missing = [node.kind for key, node in planned(seeds=1).nodes.items() if not store.has(key)]
    assert set(missing) == {"audit"}


# -- --require-go ---------------------------------------------------------------------------------------------------

ALL = ("align-distil", "distil-align", "align-distil-align")


class Verdicts(Audited):
    """Notes the kinds of work in the order in which it is done."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def run(self, nodes: Any, load: Load) -> Any:
        self.order += [node.kind for node in nodes]
        return super().run(nodes, load)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Verdicts by algorithm, `go` unless said otherwise; audits are noted in the order of the work."""
    verdicts: dict[str, str] = {}

    def judged(draw: Any, nodes: Any, load: Load) -> Any:
        found = []
        for node in nodes:
            plan = node.settings["plan"]
            second = "later" if plan["rollouts"] < 800 else "first"
            call = verdicts.get(second, verdicts.get(plan["algorithm"], "go"))
            assert call != "broken"
            found.append(Artefact(meta=dict(zip(audit_nodes.COLUMNS, (0.5, 0.6, call, "so it is"), strict=True))))
        return found

    monkeypatch.setattr(sys.modules[__name__], "run_audit", judged)
    return verdicts


def start(
    tmp_path: Path, world: ToyWorld, monkeypatch: pytest.MonkeyPatch, require_go: bool = True, **study: Any
) -> Any:
    monkeypatch.setattr(runner, "load_world", lambda name: world)
    config = Config(**({"seeds": 2, "algorithms": ("reinforce", "grpo"), "beta": (0.1, 0.2), "recipes": ALL} | study))
    said: list[str] = []
    result = runner.run(config, tmp_path / "run", ExecutionOptions(0, require_go=require_go), say=said.append)
    return result, said


def test_all_go_trains_everything_after_its_audits(
    tmp_path: Path, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Verdicts()
    result, said = start(tmp_path, world, monkeypatch)
    assert (result.status, result.exit_code) == ("complete", 0)
    first_level = 2 * 2 * 2 * 2  # seeds x algorithms x betas x (sft, student)
    assert world.order[: world.order.index("align")].count("audit") == first_level
    assert said == [f"the audit says go for all {n} alignments that are trained now" for n in (first_level, 8)]
    plain, _ = start(tmp_path / "plain", Verdicts(), monkeypatch, require_go=False)
    assert (result.out / "records.jsonl").read_bytes() == (plain.out / "records.jsonl").read_bytes()


@pytest.mark.parametrize("call", ["no-go", "insufficient data"])
def test_one_that_is_not_a_go_stops_all_before_any_is_trained(
    call: str, tmp_path: Path, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told["grpo"] = call
    world = Verdicts()
    with pytest.raises(GateError) as e:
        start(tmp_path, world, monkeypatch)
    text = str(e.value)
    assert text.startswith(f"8 of 16 alignments are not a go (8 {call}), so nothing more was trained; the first is ")
    assert f"align-distil, grpo at beta 0.1, seed 0: {call} (so it is). Change the study" in text and "\n" not in text
    assert e.value.exit_code == ExitCode.GATE == 4
    assert "align" not in world.order and world.order.count("audit") == 16
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "interrupted" and not (tmp_path / "run" / "records.jsonl").exists()
    again = Verdicts()
    with pytest.raises(GateError):
        start(tmp_path, again, monkeypatch)
    assert set(again.order) <= {"measure", "predict"}, "what was audited is not audited again"
    result, _ = start(tmp_path, Verdicts(), monkeypatch, require_go=False)
    assert result.status == "complete"


def test_a_second_alignment_is_judged_once_the_first_is_trained(
    tmp_path: Path, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told["later"] = "no-go"
    world = Verdicts()
    with pytest.raises(GateError, match="8 of 8 alignments are not a go"):
        start(tmp_path, world, monkeypatch)
    assert world.order.count("align") == 16


def test_refused_algorithms_and_failed_audits_are_no_go_ahead(
    tmp_path: Path, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError, match=r"3 of 6 alignments are not a go \(3 refused\)"):
        start(tmp_path / "a", Verdicts(), monkeypatch, algorithms=("reinforce", "ipo"), seeds=1, beta=(0.1,),
              recipes=("align-only", "distil-align-anchored", "distil-align"))  # fmt: skip
    told["grpo"] = "broken"
    with pytest.raises(GateError, match=r"not audited \(AssertionError"):
        start(tmp_path / "b", Verdicts(), monkeypatch)


def test_a_world_that_is_not_audited_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="needs a world whose studies are audited"):
        start(tmp_path, ToyWorld(), monkeypatch)
    assert not (tmp_path / "run").exists()


# -- a worker that dies of an audit ---------------------------------------------------------------------------------


class Deadly(InlinePool):
    """Audits kill their worker, after all else is done: no report comes any more that could wake what waits.

    With nothing under way `wait` raises, where a pool of processes would wait for ever.
    """

    idle = 1

    def wait(self) -> TaskOutcome:
        self._tasks = deque(sorted(self._tasks, key=lambda task: task.kind == "audit"))
        if self._tasks[0].kind == "audit":
            return TaskOutcome(self._tasks.popleft(), 0, None, "killed by SIGKILL")
        return super().wait()


class First(Audited):
    """The same, with alignments that wait for their audits."""

    audit_first = True


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "pool_for", lambda world, reference, store, options: Deadly(world, store))


def test_an_audit_that_kills_its_worker_is_told_and_the_alignment_goes_on(
    tmp_path: Path, deadly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, said = start(tmp_path, First(), monkeypatch, require_go=False, seeds=1, beta=(0.1,))
    assert result.exit_code == ExitCode.PARTLY_FAILED
    assert len(said) == 6 and all("not audited (its worker process died each time" in line for line in said)
    rows = [json.loads(line) for line in (result.out / "records.jsonl").read_text().splitlines()]
    assert all(row["status"] == "ok" for row in rows) and any("audit: its worker" in str(row["error"]) for row in rows)


def test_with_require_go_it_stops_the_run(tmp_path: Path, deadly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GateError, match=r"not audited \(its worker process died each time"):
        start(tmp_path, First(), monkeypatch, seeds=1, beta=(0.1,))
