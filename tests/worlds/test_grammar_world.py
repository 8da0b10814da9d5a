"""The grammar world: every stage on tiny models, the same bytes whoever shares the call, rewards that misbehave."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

from alignfirst import worlds
from alignfirst.errors import ExitCode
from alignfirst.nodes import Artefact, Failure, Node, Outcome
from alignfirst.records import read
from alignfirst.store import encode
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import StudyConfig, from_mapping
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.plan.planner import Plan, plan_study
from alignfirst.study.runner import run
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.grammar.language import language

WORLD = worlds.get("grammar")
TINY: dict[str, Any] = {
    "world": "grammar", "seeds": 1, "beta": 0.1, "algorithms": ["grpo"], "measure": {"samples": 32},
    "p_star": {"words": 8, "own": 4, "successors": 2, "behaviours": 3, "length": 4, "further_prompts": [0.3]},
    "sft": {"hidden": 8, "layers": 1, "heads": 2, "intermediate": 8, "steps": 6, "batch": 16},
    "distil": {"hidden": 4, "heads": 1, "intermediate": 4, "steps": 4, "batch": 16, "samples": 64},
    "align": {"updates": 8, "samples": 16, "group_size": 4}, "preferences": {"pairs": 32},
}  # fmt: skip


def tiny(**sets: Any) -> StudyConfig:
    return from_mapping(TINY).with_values(sets) if sets else from_mapping(TINY)


class Played:
    """A whole study computed in this process, nodes in the order of the plan."""

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        self.plan: Plan = plan_study(config, WORLD)
        self.outcomes: dict[str, Outcome] = {}
        for key, node in self.plan.nodes.items():
            self.outcomes[key] = self.again([node])[0]

    def again(self, nodes: Sequence[Node]) -> list[Outcome]:
        return WORLD.run(nodes, self.load)

    def load(self, key: str) -> Artefact:
        found = self.outcomes[key]
        assert isinstance(found, Artefact), found
        return found

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self.plan.nodes.values() if node.kind == kind]


@pytest.fixture(scope="module")
def everything() -> Played:
    """Every recipe with every algorithm."""
    return Played(tiny(recipes=list(RECIPES), algorithms=list(ALGORITHMS)))


def test_every_recipe_and_algorithm_ends_in_finite_models_of_the_right_size(everything: Played) -> None:
    for node in everything.plan.nodes.values():
        found = everything.load(node.key)
        json.dumps(found.meta, allow_nan=False)
        assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in found.arrays.values())
    for cell in everything.plan.cells:
        final = everything.load(cell.stages[-1].model).meta["config"]["hidden"]
        assert final == (8 if cell.recipe == "align-only" else 4)


def test_the_price_of_every_training_is_what_it_took(everything: Played) -> None:
    """No text ends early. Where target examples are mixed in, how many tokens an update has is a matter of the draw."""
    nodes = everything.plan.nodes
    for node in nodes.values():
        price = WORLD.price(node, nodes)
        assert price.flops > 0
        if node.kind in ("sft", "distil", "align"):
            artefact = everything.load(node.key)
            assert artefact.meta["tokens"] == price.counted()["tokens"], node.settings
            assert artefact.meta["flops"] == pytest.approx(price.flops, rel=1e-9), node.settings
            assert price.stored == sum(a.nbytes for a in artefact.arrays.values())


def test_training_says_what_it_cost(everything: Played) -> None:
    (sft,) = everything.of_kind("sft")
    meta = everything.load(sft.key).meta
    assert (meta["updates"], meta["samples"]) == (6, 96)
    for node in everything.of_kind("distil"):
        assert everything.load(node.key).meta["samples"] == 64
    for node in everything.of_kind("align"):
        meta = everything.load(node.key).meta
        short = node.settings["occurrence"] == 1
        assert meta["updates"] == (2 if short else 8)
        method = ALGORITHMS[node.settings["algorithm"]]
        drawn = 16 * (math.ceil(meta["updates"] / 4) if method.reuses_batches else meta["updates"])
        assert meta["samples"] == (64 if method.data == "pairs-offline" else drawn)
        assert 0 <= meta["target_draws"] <= meta["samples"]


def test_curves_have_what_the_report_draws(everything: Played) -> None:
    for node in everything.of_kind("align"):
        curves = everything.load(node.key).meta["curves"]
        assert {"reward", "entropy", "kl", "target_draws", "loss"} <= set(curves)
        known = [v for v in curves["reward"] if v is not None]
        assert len(curves["reward"]) == node.settings["updates"] and known
        assert all(math.isfinite(v) for v in known)


def test_exhibits_cover_every_model(everything: Played) -> None:
    models = {n.key: everything.load(n.key) for kind in ("sft", "align", "distil") for n in everything.of_kind(kind)}
    found = WORLD.exhibits(everything.config, models)
    json.dumps(found, allow_nan=False)
    assert found["models"].keys() == models.keys()
    for model in found["models"].values():
        assert {text["prompt"] for text in model["texts"]} == {0, 1}


def test_a_node_is_the_same_alone_together_and_the_second_time(everything: Played) -> None:
    for kind in ("sft", "distil", "align", "measure"):
        nodes = everything.of_kind(kind)[:6]
        together = everything.again(nodes)
        for node, outcome in zip(nodes, together, strict=True):
            assert isinstance(outcome, Artefact)
            assert encode(outcome) == encode(everything.load(node.key))


def test_global_random_state_is_neither_used_nor_moved(everything: Played) -> None:
    import torch

    node = everything.of_kind("align")[0]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    (outcome,) = everything.again([node])
    assert isinstance(outcome, Artefact) and encode(outcome) == encode(everything.load(node.key))
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_and_occurrences_differ() -> None:
    played = Played(tiny(recipes=["align-distil-align"], seeds=2))
    models = [played.load(n.key) for n in played.plan.nodes.values() if n.kind in ("sft", "align", "distil")]
    assert len({b"".join(encode(m)) for m in models}) == len(models)


def test_the_three_distillations_differ_and_start_alike() -> None:
    played = Played(tiny(recipes=["distil-only"], **{"distil.loss": ["sequence", "forward-kl", "reverse-kl"]}))
    found = [played.load(n.key) for n in played.of_kind("distil")]
    assert len(found) == 3 and len({b"".join(encode(m)) for m in found}) == 3
    assert {m.meta["updates"] for m in found} == {4}


@pytest.mark.parametrize(
    "sets",
    [
        {"align.level": "token"},
        {"align.level": "token", "align.kl_in": "loss"},
        {"distil.loss": "forward-kl", "distil.top_k": 3},
        {"distil.loss": "reverse-kl", "distil.top_k": 3},
        {"preferences.flip": 0.4, "algorithms": ["dpo-offline"]},
        {"preferences.labels": "hard", "algorithms": ["dpo-online"]},
        {"align.ppo_epochs": 2, "algorithms": ["ppo"]},
        {"reward.kind": "posterior"},
    ],
)
def test_every_option_changes_what_it_is_for(everything: Played, sets: dict[str, Any]) -> None:
    played = Played(tiny(**{"recipes": ["align-distil"], "measure.samples": 16} | sets))
    known = {b"".join(encode(everything.load(n.key))) for kind in ("align", "distil") for n in everything.of_kind(kind)}
    trained = [b"".join(encode(played.load(n.key))) for kind in ("align", "distil") for n in played.of_kind(kind)]
    assert any(model not in known for model in trained)
    assert not {n.key for n in played.of_kind("distil")} & everything.plan.nodes.keys()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_trl_trains_in_the_same_place() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    played = Played(tiny(recipes=["align-only"], algorithms=["dpo-offline", "rloo"], **{"align.trainer": "trl"}))
    for node in played.of_kind("align"):
        found = played.load(node.key)
        assert found.meta["updates"] == 8 and found.meta["samples"] > 0
        assert encode(found) != encode(played.load(node.inputs["initial"]))


def test_measurements_are_columns(everything: Played) -> None:
    from alignfirst.records import COLUMNS

    for node in everything.of_kind("measure"):
        found = everything.load(node.key).meta
        assert set(found) <= {c.name for c in COLUMNS}
        assert ("kl_to_reference" in found) == ("reference" in node.inputs)
        assert 0 <= found["target_mass"] <= 1 and found["measured_on"] == 32
        if node.inputs["model"] == node.inputs["sft"]:
            assert found["kl_to_sft"] == pytest.approx(0, abs=1e-5)


# --- what a model learns, on a language that it can learn in a second


@pytest.fixture(scope="module")
def learnt() -> Played:
    sets = {
        "sft.steps": 300, "sft.hidden": 32, "sft.intermediate": 32, "sft.batch": 64, "sft.learning_rate": 0.01,
        "distil.hidden": 16, "distil.heads": 2, "distil.intermediate": 16, "distil.steps": 200, "distil.batch": 64,
        "distil.samples": 1024, "distil.learning_rate": 0.01, "measure.samples": 1024, "align.updates": 30,
        "align.samples": 64, "align.learning_rate": 0.01, "p_star.target_weight": 0.2,
        "recipes": ["align-distil", "distil-align-rehearsed", "distil-only"], "distil.rehearsal": 0.5,
    }  # fmt: skip
    return Played(tiny(**sets))


def measured(played: Played, recipe: str) -> list[dict[str, Any]]:
    (cell,) = [c for c in played.plan.cells if c.recipe == recipe]
    return [dict(played.load(stage.measure).meta) for stage in cell.stages]


def test_sft_comes_close_to_p_star(learnt: Played) -> None:
    """Its recall falls short of the entropy of p_star by the KL, which is small; masses are those of the prompts."""
    sft = measured(learnt, "align-distil")[0]
    lang = language(WORLD.settings("sft", learnt.config, seed=0)["p_star"])
    assert sft["overall_precision"] == pytest.approx(-sft["entropy"], abs=0.5)
    weights = np.exp(lang.log_weights)[:, -1]
    for prompt, weight in zip(("1", "2"), weights, strict=True):
        assert sft["by_prompt"][prompt]["target_mass"] == pytest.approx(weight, abs=0.08 + 5 * 0.5 / math.sqrt(512))


def test_alignment_finds_the_target_and_distilling_keeps_it(learnt: Played) -> None:
    sft, aligned, student = measured(learnt, "align-distil")
    assert sft["target_mass"] < 0.5 < aligned["target_mass"]
    assert student["target_mass"] > 0.5 and aligned["reward"] > sft["reward"] + 0.2
    assert aligned["kl_to_reference"] > 0.5


def test_rehearsal_brings_the_target_into_the_student(learnt: Played) -> None:
    plain, rehearsed = measured(learnt, "distil-only")[1], measured(learnt, "distil-align-rehearsed")[1]
    assert rehearsed["target_mass"] > plain["target_mass"] + 0.1


# --- rewards of the user


MISBEHAVING = """
import time
CALLS = []

def fine(prompts, texts):
    assert prompts[0].startswith("<") and len(texts[0].split()) == 4
    return [float(text.count("rose")) for text in texts]

def nan(prompts, texts):
    return [float("nan") if i == 3 else 0.5 for i in range(len(texts))]

def infinite(prompts, texts):
    return [0.5] * (len(texts) - 1) + [float("inf")]

def minus_infinite(prompts, texts):
    return [float("-inf")] * len(texts)

def text(prompts, texts):
    return ["good"] * len(texts)

def few(prompts, texts):
    return [0.5] * (len(texts) - 1)

def raising(prompts, texts):
    raise RuntimeError("no idea")

def hanging(prompts, texts):
    time.sleep(60)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_this_test.py").write_text(MISBEHAVING)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("mine")
def test_a_function_of_texts_is_a_reward() -> None:
    played = Played(tiny(recipes=["align-only"], **{"reward.kind": "rewards_of_this_test:fine"}))
    for node in played.of_kind("measure"):
        assert played.load(node.key).meta["reward"] >= 0


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("nan", "returned nan for row 3 at update 0"),
        ("infinite", "returned inf for row 15 at update 0"),
        ("minus_infinite", "returned -inf for row 0 at update 0"),
        ("text", "returned good for row 0 at update 0"),
        ("few", "returned 15 values for 16 rows at update 0: none for row 15"),
        ("raising", "raised RuntimeError: no idea for row 0 at update 0"),
        ("hanging", "gave no answer within 0.2 s for row 0 at update 0"),
        ("missing", "the reward function must be importable"),
    ],
)
def test_a_reward_that_misbehaves_fails_its_cell_with_the_row_named(function: str, words: str, count: Any) -> None:
    """A reward that gives NaN, an infinity, text or too few values, raises, hangs or is not there fails its cell with
    the row named."""
    with count("numbers: rewards").trial():
        check_misbehaving(function, words)


def check_misbehaving(function: str, words: str) -> None:
    begin = time.monotonic()
    config = tiny(recipes=["align-only"], **{"reward.kind": f"rewards_of_this_test:{function}", "reward.timeout": 0.2})
    plan, done = plan_study(config, WORLD), {}
    for node in plan.nodes.values():
        if node.kind in ("sft", "align"):
            (done[node.key],) = WORLD.run([node], done.__getitem__)
    (failure,) = [o for o in done.values() if isinstance(o, Failure)]
    assert words in failure.reason
    assert time.monotonic() - begin < 20


@pytest.mark.usefixtures("mine")
def test_siblings_of_a_failed_cell_go_on(tmp_path: Path) -> None:
    config = tiny(
        recipes=["align-distil"],
        **{"reward.kind": ["reflected", "rewards_of_this_test:nan"], "reward.timeout": 5.0, "measure.samples": 16},
    )
    result = run(config, tmp_path / "run", ExecutionOptions(workers=0))
    assert (result.status, result.exit_code) == ("partial", ExitCode.PARTLY_FAILED)
    rows = read(tmp_path / "run" / "records.jsonl")
    good = [r for r in rows if r["reward.kind"] == "reflected"]
    bad = [r for r in rows if r["reward.kind"] != "reflected"]
    assert {r["status"] for r in good} == {"ok"}
    assert [r["status"] for r in bad] == ["failed", "failed", "blocked"]
    assert "row 3" in bad[1]["error"] and "update 0" in bad[1]["error"]
    assert json.loads((tmp_path / "run" / "exhibits.json").read_text())["kind"] == "text"
