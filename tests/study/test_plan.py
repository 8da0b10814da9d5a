"""Planning: which cells a config means, which nodes they share, and what a key depends on."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import pytest
from toy_world import WORLD, ToyAlign, ToyConfig, ToyPreferences, ToyWorld

from alignfirst.nodes import Node
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.plan.planner import Cell, Plan, plan_study


def planned(**settings: Any) -> Plan:
    defaults = {"seeds": 2, "algorithms": ("reinforce",), "beta": (0.1,), "recipes": ("align-distil", "distil-align")}
    return plan_study(ToyConfig(**(defaults | settings)), WORLD)


def only(plan: Plan, recipe: str, algorithm: str | None = "reinforce", seed: int = 0) -> Cell:
    (cell,) = [c for c in plan.cells if (c.recipe, c.algorithm, c.seed) == (recipe, algorithm, seed)]
    return cell


def models(plan: Plan, cell: Cell) -> list[Node]:
    return [plan.nodes[stage.model] for stage in cell.stages]


def test_cells_are_the_product_of_the_axes_and_baselines_run_once_a_seed() -> None:
    plan = planned(seeds=3, algorithms=("reinforce", "best-of-n"), beta=(0.1, 0.2), recipes=tuple(RECIPES))
    found = Counter((c.recipe, c.algorithm, c.beta) for c in plan.cells)
    aligning = [name for name in RECIPES if name != "distil-only"]
    expected = {(r, "reinforce", b): 3 for r in aligning for b in (0.1, 0.2)}
    expected |= {(r, "best-of-n", None): 3 for r in aligning} | {("distil-only", None, None): 3}
    assert found == expected


def test_every_cell_has_sft_and_the_stages_of_its_recipe() -> None:
    plan = planned(recipes=tuple(RECIPES))
    for cell in plan.cells:
        kinds = ["sft", *(stage.kind for stage in RECIPES[cell.recipe])]
        assert [stage.kind for stage in cell.stages] == kinds
        assert [node.kind for node in models(plan, cell)] == kinds
        for stage in cell.stages:
            measure = plan.nodes[stage.measure]
            assert measure.inputs["model"] == stage.model
            assert measure.inputs["sft"] == cell.stages[0].model
            assert ("reference" in measure.inputs) == (stage.kind == "align")


def test_shared_work_is_planned_once() -> None:
    plan = planned(seeds=3, beta=(0.1, 0.2), recipes=("align-distil", "distil-align", "align-only", "distil-only"))
    kinds = Counter(node.kind for node in plan.nodes.values())
    assert kinds["sft"] == 3
    assert kinds["distil"] == 3 * (1 + 2)  # of sft once a seed, of an aligned model once a beta
    assert kinds["align"] == 3 * 2 * 2  # align-only is the first stage of align-distil
    assert kinds["measure"] == kinds["sft"] + kinds["distil"] + kinds["align"]
    assert kinds["predict"] == 3 * (3 * 2 + 1)


def test_inputs_stand_before_those_that_need_them_and_keys_name_their_nodes() -> None:
    plan = planned(recipes=tuple(RECIPES), algorithms=("ppo", "dpo-offline"))
    seen: set[str] = set()
    for key, node in plan.nodes.items():
        assert key == node.key == Node(node.kind, dict(node.settings), dict(node.inputs), node.version).key
        assert set(node.inputs.values()) <= seen
        seen.add(key)


def test_the_reference_is_the_start_unless_the_recipe_or_the_config_says_sft() -> None:
    plan = planned(recipes=("distil-align", "distil-align-anchored"), algorithms=("dpo-offline",))
    for recipe, expected in (("distil-align", 1), ("distil-align-anchored", 0)):
        nodes = models(plan, only(plan, recipe, "dpo-offline"))
        assert nodes[2].inputs["initial"] == nodes[1].key
        assert nodes[2].inputs["reference"] == nodes[expected].key
        assert nodes[2].inputs["pairs"] == nodes[expected].key
    anchored = planned(recipes=("distil-align",), align=ToyAlign(reference="sft"))
    nodes = models(anchored, only(anchored, "distil-align"))
    assert nodes[2].inputs == {"initial": nodes[1].key, "reference": nodes[0].key}


def test_offline_pairs_come_from_the_start_unless_the_config_says_sft() -> None:
    for source, expected in (("start", 1), ("sft", 0)):
        plan = planned(algorithms=("dpo-offline", "dpo-online"), preferences=ToyPreferences(source=source))
        nodes = models(plan, only(plan, "distil-align", "dpo-offline"))
        assert nodes[2].inputs["pairs"] == nodes[expected].key
        assert nodes[2].inputs["reference"] == nodes[1].key
        assert "pairs" not in models(plan, only(plan, "distil-align", "dpo-online"))[2].inputs


def test_a_second_align_is_shorter_and_draws_other_noise() -> None:
    plan = planned(recipes=("align-distil-align",))
    _, first, student, second = models(plan, only(plan, "align-distil-align"))
    assert (first.settings["occurrence"], second.settings["occurrence"]) == (0, 1)
    assert second.settings["updates"] == first.settings["updates"] / 4
    assert second.inputs["reference"] == student.key


def test_theory_is_told_the_reference_that_alignment_will_have() -> None:
    plan = planned(recipes=("distil-align",), align=ToyAlign(reference="sft"))
    cell = only(plan, "distil-align")
    assert cell.predict is not None
    assert [s["reference"] for s in plan.nodes[cell.predict].settings["stages"]] == ["sft", "sft"]


def test_a_world_that_does_not_predict_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ToyWorld()
    monkeypatch.setattr(world, "versions", {k: 1 for k in WORLD.versions if k != "predict"}, raising=False)
    plan = plan_study(ToyConfig(seeds=1, algorithms=("ppo",), beta=(0.1,)), world)
    assert "predict" not in {node.kind for node in plan.nodes.values()}
    assert {cell.predict for cell in plan.cells} == {None}


def test_keys_do_not_depend_on_what_else_is_planned() -> None:
    small = planned(seeds=[1], beta=(0.2,), recipes=("distil-align",))
    large = planned(
        seeds=[3, 1], beta=(0.1, 0.2), recipes=("align-distil", "distil-align"), algorithms=("ppo", "reinforce")
    )
    assert small.nodes.keys() < large.nodes.keys()


def test_a_key_changes_with_what_changes_its_output_and_nothing_else() -> None:
    plain, other = planned(), planned(align=ToyAlign(gain=0.6))
    changed = {node.kind for key, node in plain.nodes.items() if key not in other.nodes}
    assert changed == {"align", "distil", "measure"}
    assert {k for k, n in plain.nodes.items() if n.kind == "sft"} <= other.nodes.keys()


def test_a_raised_version_makes_new_keys_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ToyWorld()
    monkeypatch.setattr(world, "versions", dict(WORLD.versions) | {"distil": 2}, raising=False)
    old, new = planned(), plan_study(ToyConfig(seeds=2, algorithms=("reinforce",), beta=(0.1,)), world)
    assert {n.kind for k, n in old.nodes.items() if k in new.nodes} == {"sft", "align", "measure", "predict"}
    assert not {k for k, n in old.nodes.items() if n.kind == "distil"} & new.nodes.keys()


def test_varied_values_are_applied_and_named() -> None:
    plan = planned(vary={"align.gain": (0.5, 0.7), "align.updates": (8, 16)})
    assert plan.varied == ("align.gain", "align.updates")
    combinations = [(c.varied["align.gain"], c.varied["align.updates"]) for c in plan.cells]
    assert combinations == [(g, u) for g in (0.5, 0.7) for u in (8, 16) for _ in range(4)]
    for cell in plan.cells:
        align = next(node for node in models(plan, cell) if node.kind == "align")
        assert align.settings["gain"] == cell.varied["align.gain"]
        assert align.settings["updates"] == cell.varied["align.updates"]
    assert Counter(node.kind for node in plan.nodes.values())["sft"] == 2, "sft does not depend on what is varied"


def test_cells_are_in_the_order_of_the_config() -> None:
    plan = planned(seeds=[7, 3], beta=(0.2, 0.1), algorithms=("rloo", "ppo"))
    found = [(c.recipe, c.algorithm, c.beta, c.seed) for c in plan.cells]
    recipes = ("align-distil", "distil-align")
    assert found == [(r, a, b, s) for r in recipes for a in ("rloo", "ppo") for b in (0.2, 0.1) for s in (7, 3)]


def test_the_digest_tells_plans_apart() -> None:
    digests = [
        plan.digest
        for plan in (planned(), planned(seeds=3), planned(align=ToyAlign(gain=0.6)), planned(beta=(0.1, 0.2)))
    ]
    assert len(set(digests)) == 4
    assert planned().digest == digests[0]


def test_the_default_study_is_planned_within_a_second() -> None:
    config, seconds = ToyConfig(), []
    for _ in range(3):
        begin = time.process_time()  # not the clock on the wall: other tests may share the core
        plan = plan_study(config, WORLD)
        assert plan.digest
        seconds.append(time.process_time() - begin)
    assert (len(plan.cells), len(plan.nodes)) == (2040, 6520)
    assert min(seconds) < 1.0
