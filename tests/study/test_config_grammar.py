"""The sections of a grammar study: defaults, refusals, presets, and what the plan makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignfirst import worlds
from alignfirst.errors import InputError
from alignfirst.study.config import preset_files
from alignfirst.study.config.grammar_sections import REWARDS
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import from_mapping
from alignfirst.study.plan.planner import plan_study
from alignfirst.theory.objectives import ALGORITHMS

PRESETS = [name for name in preset_files.names() if name.startswith("grammar")]
GRAMMAR = from_mapping({"world": "grammar"})
WORLD = worlds.get("grammar")


def test_defaults_are_those_of_the_glossary() -> None:
    assert (GRAMMAR.beta, GRAMMAR.seed_list) == ((0.05, 0.1, 0.3), (0, 1, 2, 3, 4))
    for key, value in {
        "p_star.target_weight": 0.05, "p_star.behaviours": 6, "p_star.words": 48, "p_star.own": 16,
        "p_star.successors": 4, "p_star.smoothing": 0.02, "p_star.length": 16, "reward.kind": "reflected",
        "reward.temperature": 0.8, "sft.steps": 500, "sft.batch": 128, "distil.steps": 250, "distil.samples": 8192,
        "distil.temperature": 0.8, "align.updates": 72, "align.samples": 128, "align.ppo_epochs": 4,
        "align.group_size": 8, "preferences.pairs": 4096, "preferences.scale": 5.0,
    }.items():  # fmt: skip
        assert GRAMMAR.value(key) == value, key
    assert preset_files.load("grammar").with_values({"name": "study", "preset": "study", "description": ""}) == GRAMMAR


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"p_star": {"target_weight": 0.0}}, "p_star.target_weight must be >= 1e-06"),
        ({"p_star": {"target_weight": 1.0}}, "p_star.target_weight must be <="),
        ({"p_star": {"further_prompts": [0.1, 2.0]}}, "p_star.further_prompts[1] must be <="),
        ({"p_star": {"own": 25}}, "p_star.own must be at most half of p_star.words (48), got 25"),
        ({"p_star": {"successors": 17}}, "p_star.successors must be at most p_star.own (16), got 17"),
        ({"p_star": {"smoothing": 0.0}}, "p_star.smoothing must be >= 0.0001"),
        ({"p_star": {"weights": [1]}}, "every key must be a known one, got p_star.weights"),
        ({"sft": {"hidden": 100, "heads": 8}}, "sft.hidden must be a multiple of twice sft.heads (8), got 100"),
        ({"distil": {"heads": 3}}, "distil.hidden must be a multiple of twice distil.heads (3), got 64"),
        ({"distil": {"loss": "kl"}}, "distil.loss must be one of"),
        ({"distil": {"temperature": 0}}, "distil.temperature must be > 0"),
        ({"align": {"samples": 100}}, "align.group_size must divide align.samples (100), got 8"),
        ({"align": {"min_sd": 1}}, "every key must be a known one, got align.min_sd"),
        ({"reward": {"kind": "reflect"}}, "reward.kind must be a reward, got reflect. Did you mean reflected?"),
        ({"reward": {"kind": "mine:"}}, "or name a function of yours as module:function"),
        ({"reward": {"kind": "a b:c"}}, "reward.kind must be a reward"),
        ({"reward": {"timeout": 0}}, "reward.timeout must be > 0"),
        (
            {"align": {"trainer": "trl"}},
            "algorithms must be among dpo-offline, rloo, grpo where align.trainer is trl, got reinforce",
        ),
        (
            {"align": {"trainer": "trl"}, "algorithms": "grpo"},
            "grpo of TRL must have level: token and kl_in: loss, got level: sequence, kl_in: reward",
        ),
        ({"align": {"kl_in": "both"}}, "align.kl_in must be one of"),
        ({"distil": {"top_k": 0}}, "distil.top_k must be >= 1"),
        ({"measure": {"samples": 1}}, "measure.samples must be >= 16"),
        ({"recipes": ["align-distil-align"], "align": {"updates": 3}}, "at least one update, got 3. Use at least 4."),
        (
            {"recipes": ["distil-align-rehearsed"], "distil": {"loss": "reverse-kl"}},
            "recipes must not rehearse where distil.loss is reverse-kl, got distil-align-rehearsed",
        ),
        ({"recipes": ["distil-align-rehearsed"], "distil": {"rehearsal": 0}}, "mix in at least one example"),
    ],
)
def test_a_bad_value_is_refused_with_rule_value_and_cure(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping({"world": "grammar", **data})
    assert words in str(caught.value)


def test_functions_of_the_user_are_rewards() -> None:
    assert from_mapping({"world": "grammar", "reward.kind": "my_rewards:helpful"}).value("reward.kind")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_plan_without_torch(name: str) -> None:
    config = preset_files.load(name)
    assert config.world == "grammar" and len(config.seed_list) >= 5
    plan = plan_study(config, WORLD)
    assert {node.kind for node in plan.nodes.values()} == {"sft", "align", "distil", "measure", "audit"}
    for node in plan.nodes.values():
        assert WORLD.batch_size(node) >= 1 and hash(WORLD.group(node)) is not None


def test_presets_ask_what_they_are_for() -> None:
    assert len(PRESETS) == 7
    weights = {name: preset_files.load(name).value("p_star.target_weight") for name in PRESETS}
    assert (weights["grammar"], weights["grammar-rare"], weights["grammar-common"]) == (0.05, 0.01, 0.2)
    assert len(preset_files.load("grammar-prompts").value("p_star.further_prompts")) >= 2
    assert set(preset_files.load("grammar-budget").vary) == {"align.updates", "align.learning_rate"}
    assert set(preset_files.load("grammar-distil").vary) == {"distil.loss", "distil.temperature"}
    grammar = preset_files.load("grammar")
    assert grammar.algorithms == ("reinforce", "grpo", "ppo", "dpo-offline", "dpo-online")
    assert grammar.seed_list == (0, 1, 2, 3, 4)


def test_settings_hold_what_changes_an_output_and_nothing_else() -> None:
    """A key of the config moves the nodes of its own stage and those behind it, no others."""

    def keys(sets: dict[str, Any]) -> dict[str, set[str]]:
        config = GRAMMAR.with_values({"recipes": ["distil-align"], "algorithms": ["dpo-offline"], "seeds": 1, **sets})
        found: dict[str, set[str]] = {}
        for key, node in plan_study(config, WORLD).nodes.items():
            found.setdefault(node.kind, set()).add(key)
        return found

    base = keys({})
    moved = {
        "measure.samples": 512, "align.updates": 10, "preferences.pairs": 64, "distil.temperature": 0.9,
        "sft.steps": 10, "reward.temperature": 0.7, "p_star.target_weight": 0.1,
    }  # fmt: skip
    expected = {
        "measure.samples": {"measure"}, "align.updates": {"align"}, "preferences.pairs": {"align", "audit"},
        "distil.temperature": {"distil", "align", "audit"}, "sft.steps": {"sft", "distil", "align", "audit"},
        "reward.temperature": {"align", "audit"}, "p_star.target_weight": {"sft", "distil", "align", "audit"},
    }  # fmt: skip
    for key, value in moved.items():
        now = keys({key: value})
        changed = {kind for kind in base if kind != "measure" and not base[kind] & now[kind]}
        assert changed | ({"measure"} if key == "measure.samples" else set()) == expected[key], key
        assert base["measure"] != now["measure"]
    for key, value in {"align.ppo_epochs": 2, "align.group_size": 4, "reward.timeout": 5.0}.items():
        assert keys({key: value}) == base, key  # read by other algorithms, or by functions of the user, alone


def test_every_recipe_and_algorithm_has_settings() -> None:
    config = GRAMMAR.with_values({"recipes": list(RECIPES), "algorithms": list(ALGORITHMS), "seeds": 1, "beta": 0.1})
    plan = plan_study(config, WORLD)
    aligned = {node.settings["algorithm"] for node in plan.nodes.values() if node.kind == "align"}
    assert aligned == set(ALGORITHMS)
    assert any("rehearsal" in node.settings for node in plan.nodes.values() if node.kind == "distil")


def test_every_key_is_documented_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "grammar.md").read_text(encoding="utf-8")
    table = page.split("| key | default | |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()]
    expected = [["`beta`", "0.05, 0.1, 0.3"], ["`seeds`", "5"]]
    for section, values in GRAMMAR.resolved().items():
        if isinstance(values, dict) and section != "vary":
            for key, value in values.items():
                expected.append([f"`{section}.{key}`", "none" if value in (None, []) else str(value)])
    assert rows == expected


def test_every_reward_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "grammar.md").read_text(encoding="utf-8")
    table = page.split("| kind | reward |\n|---|---|\n")[1].split("\n\n")[0]
    kinds = [line.split("`")[1] for line in table.splitlines()]
    assert kinds == [*REWARDS, "module:function"]
