"""A study of a user's own models from its config to its records, on a teacher of a few thousand weights."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.lm.models import named_models
from alignfirst.lm.models.load import load
from alignfirst.lm.text.logprobs import response_logp, score_rows
from alignfirst.store import Store
from alignfirst.study import runner
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.user_models import cost, models, resolved_inputs, work
from alignfirst.worlds.user_models.node_context import NodeContext
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    made.teacher(folder / "teacher")
    made.write(folder / "pairs.jsonl", made.pairs(80))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(place / "cache"))


def study(place: Path, **more: Any) -> StudyConfig:
    return made.study(place / "teacher", place / "pairs.jsonl", **more)


def played(place: Path, out: Path, **more: Any) -> Rows:
    result = runner.run(study(place, **more), out, options=ExecutionOptions(workers=0))
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert result.status == "complete", [row["error"] for row in rows]
    return rows


@pytest.fixture(scope="module")
def both(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    out = tmp_path_factory.mktemp("run") / "both"
    patch = pytest.MonkeyPatch()
    patch.setenv("ALIGNFIRST_CACHE", str(place / "cache"))
    rows = played(place, out)
    patch.undo()
    return out, rows


def test_both_orders_end_in_a_student_and_every_stage_is_measured(both: tuple[Path, Rows]) -> None:
    out, rows = both
    assert [(r["recipe"], r["stage"]) for r in rows] == [
        (recipe, stage)
        for recipe, order in (("align-distil", ("align", "distil")), ("distil-align", ("distil", "align")))
        for stage in ("sft", *order)
    ]
    store = Store(out / "store")
    for row in rows:
        sizes = store.get(row["model"]).meta["architecture"]["num_hidden_layers"]
        assert sizes == (2 if row["final"] or (row["recipe"], row["stage_index"]) == ("distil-align", 1) else 4)
        assert row["logp_chosen"] < 0 and row["held_out_pairs"] == 12 and row["measured_on"] == 12
        assert (row["held_out_accuracy"] is None) == (row["stage"] == "sft")
        low, high = row["intervals"]["logp_chosen"]
        assert low <= row["logp_chosen"] <= high
    aligned = [r for r in rows if r["stage"] == "align"]
    assert all(r["held_out_margin"] > 0 and r["held_out_accuracy"] > 0.5 for r in aligned)


def test_measurements_are_those_of_the_models(both: tuple[Path, Rows], place: Path) -> None:
    """Margin, log-probability and accuracy of a stage again, from the stored weights alone."""
    out, rows = both
    store, known = Store(out / "store"), resolve_inputs(study(place))
    row = next(r for r in rows if r["recipe"] == "distil-align" and r["stage"] == "align")
    before = next(r for r in rows if r["recipe"] == "distil-align" and r["stage"] == "distil")
    policy, reference = (models.model_of(store.get(r["model"]), store.get, "float32") for r in (row, before))
    node = plan_study(study(place), load_world("hf")).nodes
    measured = next(n for n in node.values() if n.kind == "measure" and n.inputs["model"] == row["model"])
    held = NodeContext(measured, store.get).held_out(12)
    assert all(known.index.arrays["held"][known.index.arrays["line"] == r.line].all() for r in held)

    def logp(model: Any) -> Any:
        found = score_rows(model, [(r.prompt, [r.chosen, r.rejected]) for r in held])
        return np.array([[x.sum() for x in pair] for pair in found])

    margin = (logp(policy) - logp(reference)) @ [1, -1]
    assert row["held_out_margin"] == pytest.approx(margin.mean(), abs=1e-4)
    assert row["held_out_accuracy"] == pytest.approx((margin > 0).mean())
    assert row["logp_chosen"] == pytest.approx(logp(policy)[:, 0].mean(), abs=1e-4)


def test_the_same_call_does_nothing_and_another_directory_gives_the_same_bytes(
    both: tuple[Path, Rows], place: Path, tmp_path: Path
) -> None:
    out, _ = both
    assert runner.run(study(place), out, options=ExecutionOptions(workers=0)).nothing_to_do
    played(place, tmp_path / "again")
    assert (tmp_path / "again" / "records.jsonl").read_bytes() == (out / "records.jsonl").read_bytes()


def test_the_teacher_is_not_copied_and_adapters_are_stored_alone(
    both: tuple[Path, Rows], place: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    store = Store(both[0] / "store")
    assert not store.get(both[1][0]["model"]).arrays
    rows = played(place, tmp_path / "lora", **{"lora.rank": 2, "lora.stages": ["align", "distil"], "align.updates": 4})
    kept = Store(tmp_path / "lora" / "store")
    for row in rows[1:3]:
        artefact = kept.get(row["model"])
        assert artefact.arrays and all(name.endswith((".A", ".B")) for name in artefact.arrays)
        model = models.whole(artefact, kept.get)
        for check in artefact.meta["check"]:
            (logp,) = score_rows(model, [(check["prompt"], [check["answer"]])])[0]
            assert float(logp.sum()) == pytest.approx(check["logp"], abs=1e-5)


def test_merged_adapters_are_what_peft_computes(place: Path) -> None:
    pytest.importorskip("peft")
    from alignfirst.lm.models import lora

    model = load(str(place / "teacher")).model
    lora.add_adapters(model, rank=3, alpha=7.0, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3, generator=generator)
    merged = lora.merge(load(str(place / "teacher")).model, lora.adapters(model), 7.0 / 3)
    tokens = torch.arange(14)[None]
    assert torch.allclose(merged(tokens).logits, model(tokens).logits, atol=1e-5)
    assert not torch.allclose(merged(tokens).logits, load(str(place / "teacher")).model(tokens).logits, atol=1e-2)


REWARD = "def few_a(prompts, answers):\n    return [-float(a.split().count('a')) for a in answers]\n"
WAYS: dict[str, dict[str, Any]] = {
    "sft first": {"sft.steps": 3, "sft.batch": 4},
    **{name: {"algorithms": name} for name, a in ALGORITHMS.items() if a.data == "pairs-offline"},
    "trl": {"align.trainer": "trl"},
    "bfloat16": {"precision": "bfloat16"},
    "sequence": {"distil.loss": "sequence", "distil.rehearsal": 0.25, "recipes": ["distil-align-rehearsed"]},
    "reverse": {"distil.loss": "reverse-kl", "recipes": ["align-distil-align"]},
    "grpo": {"algorithms": "grpo", "reward": {"function": "own_reward:few_a"}, "align": {
        "updates": 2, "samples": 8, "chunk": 8, "group_size": 4, "new_tokens": 4}},
    "drawn pairs": {"data": {"prompts": "prompts.jsonl", "held_out": 0.3}, "preferences.pairs": 8,
                    "reward": {"function": "own_reward:few_a"}, "align": {"updates": 2, "samples": 8, "new_tokens": 4}},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of its own arguments
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_through_ends_in_records(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "trl":
        pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_reward.py").write_text(REWARD)
    made.write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in made.pairs(60)])
    given = dict(WAYS[way])
    data = given.pop("data", None)
    more = {"align.updates": 4} if "align" not in given else {}
    base = study(place).resolved()
    base["vary"] = {}
    if data is not None:
        base["data"] = base["data"] | {"pairs": None, **data}
    for name, values in list(given.items()):
        if isinstance(values, dict):
            base[name] |= given.pop(name)
    config = type(study(place)).model_validate(base).with_values(given | more)
    result = runner.run(config, tmp_path / "run", options=ExecutionOptions(workers=0))
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert result.status == "complete", [row["error"] for row in rows]
    assert all(row["flops"] > 0 for row in rows if row["stage"] != "sft" or way == "sft first")
    if "reward" in WAYS[way]:
        assert all(row["reward"] <= 0 for row in rows)


def test_a_model_that_changed_under_a_run_is_not_used(place: Path, tmp_path: Path) -> None:
    made.teacher(tmp_path / "teacher")
    config = made.study(tmp_path / "teacher", place / "pairs.jsonl", **{"recipes": ["align-only"]})
    world = load_world("hf")
    plan = plan_study(config, world)
    store = Store(tmp_path / "store")
    world.prepare(config, store)  # type: ignore[attr-defined]
    made.teacher(tmp_path / "teacher", seed=9)
    sft = next(n for n in plan.nodes.values() if n.kind == "sft")
    (outcome,) = world.run([sft], store.get)
    assert "must not change" in getattr(outcome, "reason", "")


# -- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["align-distil", "distil-align"])
def test_flops_are_those_of_torchs_counter_within_a_twentieth(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """Attention is asked for as plain products: torch counts no fused attention on a CPU."""
    config = study(place, recipes=[recipe])
    world, store = load_world("hf"), Store(tmp_path / "store")
    world.prepare(config, store)  # type: ignore[attr-defined]

    def plain(model: Any, precision: str, ready: Any = named_models.ready) -> Any:
        model.set_attn_implementation("eager")
        response_logp(model, work.Batch.of_rows([([0], [1, 1])]))  # what scoring tries out on a new model
        return ready(model, precision)

    monkeypatch.setattr(named_models, "ready", plain)
    monkeypatch.setattr(models, "checked", lambda model, rows: [])
    nodes = plan_study(config, world).nodes
    for node in nodes.values():
        if node.kind in ("measure", "draw", "audit"):
            continue
        with FlopCounterMode(display=False) as counter:
            (found,) = world.run([node], store.get)
        total = float(counter.get_total_flops())
        store.put_many([(node.key, found)])
        if node.kind != "sft":
            assert found.meta["flops"] == pytest.approx(total, rel=0.05)
            price = world.price(node, nodes)
            assert price.flops == pytest.approx(total, rel=0.15)  # lengths are drawn, not known
            assert price.tokens == pytest.approx(sum(found.meta["tokens"].values()), rel=0.15)
            assert price.stored == pytest.approx(sum(a.nbytes for a in found.arrays.values()), rel=0.01)


@pytest.mark.parametrize("match", ["flops", "tokens"])
def test_matched_budgets_are_equal(place: Path, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the data were never read before: budgets are matched before anything else asks for their lengths."""
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path))
    for remembered in (resolved_inputs.index_of, cost.training_lengths):
        remembered.cache_clear()
    resolved_inputs._KNOWN.clear()
    more = {"budget.match": match, "align.updates": 400, "recipes": ["align-distil", "distil-align"]}
    config = study(place, **more)
    world, totals = load_world("hf"), {}
    plan = plan_study(config, world)
    for cell in plan.cells:
        align = next(plan.nodes[s.model] for s in cell.stages if s.kind == "align")
        updates = align.settings["updates"]
        stages = [world.price(plan.nodes[s.model], plan.nodes) for s in cell.stages if s.kind != "sft"]
        totals[cell.recipe] = sum(getattr(price, match) for price in stages)
        if cell.recipe == "align-distil":
            assert updates == 400
        elif match == "flops":
            assert updates > 400
    assert math.isclose(*totals.values(), rel_tol=0.01)
