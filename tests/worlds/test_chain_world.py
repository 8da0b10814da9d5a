"""The chain's world on a tiny model of SmolLM2's architecture: every stage, and what it costs to the last token."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

import torch

from alignfirst.costs.price import Price
from alignfirst.errors import InputError
from alignfirst.lm.models.build import SmolLlama
from alignfirst.lm.models.load import build, save
from alignfirst.lm.training.counters import size_of
from alignfirst.nodes import Artefact, Failure, Node
from alignfirst.records import COLUMNS, read
from alignfirst.store import SCRATCH, Scratch, encode
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.dry_run import dry_run
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.plan.planner import plan_study
from alignfirst.study.runner import run
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.chain import cost, draws

sys.path.insert(0, str(Path(__file__).parent))

from chain_studies import STAR, WORDS, WORLD, Played, tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fresh, sharpened weights and a tokenizer of forty words; w0 ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("star") / "model"
    model = build(STAR, 0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(8)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    save(model, folder, PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w0"))
    return folder


@pytest.fixture(scope="module")
def everything(source: Path) -> Played:
    """Every recipe with every algorithm."""
    return Played(tiny(source, recipes=list(RECIPES), algorithms=list(ALGORITHMS)))


def test_every_recipe_and_algorithm_ends_in_finite_models_of_the_right_size(everything: Played) -> None:
    for node in everything.plan.nodes.values():
        found = everything.load(node.key)
        json.dumps(found.meta, allow_nan=False)
        if node.kind in ("sft", "target", "distil", "align"):
            assert all(np.isfinite(a).all() for a in found.arrays.values())
            weights = sum(a.size for a in found.arrays.values())
            assert weights == cost.size(node, everything.plan.nodes).parameters
    for cell in everything.plan.cells:
        final = everything.load(cell.stages[-1].model).meta["config"]["hidden"]
        assert final == (16 if cell.recipe == "align-only" else 8)


def measured_cost(node: Node, artefact: Artefact) -> tuple[dict[str, int], float]:
    """Tokens and operations that were counted while a node ran."""
    meta = artefact.meta["shown"]["cost"] if node.kind == "measure" else artefact.meta
    if node.kind == "distil":  # its record holds its teacher's texts too, which are nodes of their own
        return meta["trained_tokens"], meta["trained_flops"]
    return meta["tokens"], meta["flops"]


def judged_cost(node: Node, played: Played) -> tuple[int, float]:
    """Tokens and operations of the passes that an audit of its own makes."""
    passes: list[Price] = []
    score = draws.score_texts

    def counted(judge: Any, texts: Any) -> Any:
        passes.append(texts.scoring_price(size_of(judge)))
        return score(judge, texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "score_texts", counted)
        WORLD.run([node], played.load)
    return int(sum(p.scored for p in passes)), sum(p.flops for p in passes)


@pytest.mark.parametrize("keep", [24, None])
def test_the_price_of_every_node_is_what_it_took(everything: Played, source: Path, keep: int | None) -> None:
    """No text ends early, so that the formula and the count are one number."""
    played = everything if keep else Played(tiny(source, algorithms=list(ALGORITHMS), **{"p_star.keep": None}))
    for node in played.plan.nodes.values():
        price = WORLD.price(node, played.plan.nodes)
        if node.kind == "audit":
            tokens, flops = judged_cost(node, played)
            assert (price.sampled, price.scored, price.trained) == (0, tokens, 0)
            assert price.flops == pytest.approx(flops, rel=1e-12)
            continue
        tokens, flops = measured_cost(node, played.load(node.key))
        counted = {name: tokens.get(name, 0) for name in ("sampled", "scored", "trained")}
        expected = {"sampled": price.sampled, "scored": price.scored, "trained": price.trained}
        assert counted == expected, (node.kind, node.settings.get("algorithm"), node.settings.get("purpose"))
        assert flops == pytest.approx(price.flops, rel=1e-9)
        if node.kind != "source":
            arrays = sum(a.nbytes for a in played.load(node.key).arrays.values())
            assert arrays == price.stored


def test_p_star_is_renormalised_over_the_tokens_that_are_kept(everything: Played) -> None:
    """Stored log-probabilities of its texts against softmax over the kept columns of the whole model."""
    from alignfirst.lm.models.load import load
    from alignfirst.worlds.chain.truth import Truth

    (found,) = everything.of_kind("source")
    truth, kept = Truth.read(everything.load(found.key)), everything.load(found.key).arrays["kept"]
    assert len(kept) == 24 and 0 not in kept and {1, 2} <= set(kept.tolist())
    shard = next(n for n in everything.of_kind("draw") if n.settings["purpose"] == "data")
    drawn = everything.load(shard.key).arrays
    rows = np.concatenate([np.tile(truth.prompt, (16, 1)), drawn["tokens"].astype(int)], 1)
    whole = load(everything.config.value("p_star.source")).model
    with torch.no_grad():
        logits = whole(torch.from_numpy(kept[rows])).logits[:, 1:-1][..., torch.from_numpy(kept)]
    logp = logits.log_softmax(-1).gather(-1, torch.from_numpy(rows[:, 2:])[..., None])[..., 0].sum(1)
    np.testing.assert_allclose(drawn["logp"], logp.numpy(), atol=1e-4)


def test_texts_come_in_shards_of_their_own_noise(everything: Played) -> None:
    data = [n for n in everything.of_kind("draw") if n.settings["purpose"] == "data"]
    assert [n.settings["samples"] for n in data] == [16, 16, 8]
    texts = {everything.load(n.key).arrays["tokens"].tobytes() for n in data}
    assert len(texts) == 3
    (sft,) = everything.of_kind("sft")
    assert {n.key for n in data} == {k for role, k in sft.inputs.items() if role.startswith("data-")}


def test_all_seeds_share_what_p_star_wrote(source: Path) -> None:
    plan = plan_study(tiny(source, seeds=3), WORLD)
    purposes = [n.settings["purpose"] for n in plan.nodes.values() if n.kind == "draw" and "model" not in n.inputs]
    assert sorted(set(purposes)) == ["data", "held-out", "measured", "target-data", "target-held-out"]
    # 16 held-out texts choose sft's checkpoint, 20 calibrate: the first shard is one and the same
    assert len([n for n in plan.nodes.values() if n.kind == "draw" and n.settings["purpose"] == "held-out"]) == 2
    assert len([n for n in plan.nodes.values() if n.kind == "target"]) == 1


def test_what_is_rehearsed_takes_the_places_of_teacher_texts(source: Path) -> None:
    sets = {"recipes": ["distil-align-rehearsed"], "distil.rehearsal": 0.25}
    plan = plan_study(tiny(source, **sets), WORLD)
    (distil,) = [n for n in plan.nodes.values() if n.kind == "distil"]
    count = {role: sum(plan.nodes[k].settings["samples"] for r, k in distil.inputs.items() if r.startswith(role))
             for role in ("data-", "again-")}  # fmt: skip
    assert count == {"data-": 24, "again-": 8}


def test_nothing_depends_on_who_shares_the_call(everything: Played) -> None:
    nodes = everything.of_kind("align")[:3]
    for node, again in zip(nodes, everything.again(nodes), strict=True):
        assert isinstance(again, Artefact) and encode(again) == encode(everything.load(node.key))


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "dpo-offline", "dpo-online"])
def test_an_alignment_that_is_cut_short_ends_as_the_whole_one(
    everything: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """Weights, curves and every count: from the checkpoint after the third answer of the oracle."""
    from alignfirst.worlds.chain.oracle import Oracle

    node = next(n for n in everything.of_kind("align") if n.settings["algorithm"] == algorithm)
    scratch = SCRATCH.set(Scratch(tmp_path, 0.0, tmp_path / "quarantine"))
    try:
        asked, honest = [0], Oracle.reward

        def dies(self: Oracle, batch: Any) -> Any:
            asked[0] += 1
            if asked[0] == 4:
                raise KeyboardInterrupt
            return honest(self, batch)

        monkeypatch.setattr(Oracle, "reward", dies)
        with pytest.raises(KeyboardInterrupt):
            everything.again([node])
        monkeypatch.undo()
        assert list((tmp_path / node.key).glob("*.json")), "nothing was kept"
        (again,) = everything.again([node])
    finally:
        SCRATCH.reset(scratch)
    assert isinstance(again, Artefact) and encode(again) == encode(everything.load(node.key))


def test_the_reward_is_scaled_by_p_star_and_rare_under_it(everything: Played) -> None:
    (target,) = everything.of_kind("target")
    meta = everything.load(target.key).meta
    assert 0.1 <= meta["star_mass"] <= 0.1 + 1 / 20  # the smallest share of 20 texts that is at least a tenth
    assert meta["scale"] > 0 and meta["own_reward"] > -1


def test_measurements_are_columns(everything: Played) -> None:
    for node in everything.of_kind("measure"):
        meta = dict(everything.load(node.key).meta)
        shown = meta.pop("shown")
        assert set(meta) <= {c.name for c in COLUMNS}
        assert ("kl_to_reference" in meta) == ("reference" in node.inputs)
        assert 0 <= meta["target_mass"] <= 1 and meta["measured_on"] == 24
        assert meta["entropy"] == pytest.approx(6 * meta["entropy_per_token"])
        assert len(shown["texts"]) == 8 and shown["texts"][0]["text"].startswith("w")
        if node.inputs["model"] == node.inputs["sft"]:
            assert meta["kl_to_sft"] == 0


def test_recalls_and_precisions_by_brute_force(everything: Played) -> None:
    """Every log-probability anew, from transformers' own logits of whole texts."""
    from alignfirst.lm.models.load import from_arrays
    from alignfirst.worlds.chain.truth import Truth

    (sft,) = everything.of_kind("sft")
    node = next(n for n in everything.of_kind("measure") if n.inputs["model"] == sft.key)
    truth = Truth.read(everything.load(node.inputs["source"]))

    def texts(role: str) -> np.ndarray:
        shards = [everything.load(k).arrays["tokens"] for r, k in sorted(node.inputs.items()) if r.startswith(role)]
        return np.concatenate(shards).astype(int)

    def logp(role: str, rows: np.ndarray) -> np.ndarray:
        made = everything.load(node.inputs[role])
        model = from_arrays(SmolLlama(**made.meta["config"]), made.arrays) if role != "source" else truth.model()
        whole = torch.from_numpy(np.concatenate([np.tile(truth.prompt, (len(rows), 1)), rows], 1))
        with torch.no_grad():
            found = model(whole).logits[:, 1:-1].log_softmax(-1).gather(-1, whole[:, 2:, None])[..., 0]
        return found.sum(1).double().numpy()

    own, meta = texts("own"), everything.load(node.key).meta
    for column, values in (
        ("target_precision", logp("target", own)),
        ("target_recall", logp("model", texts("text"))),
        ("overall_precision", logp("source", own[:8])),
        ("overall_recall", logp("model", texts("star"))),
        ("entropy", -logp("model", own)),
    ):
        assert meta[column] == pytest.approx(values.mean(), abs=1e-4), column
        assert meta[f"{column}_per_token"] == pytest.approx(values.mean() / 6, abs=1e-4)
    t = everything.load(node.inputs["target"]).meta
    rewards = -np.abs(logp("target", own) / 6 - t["level"]) / t["scale"]
    assert meta["reward"] == pytest.approx(rewards.mean(), abs=1e-4)
    assert meta["target_mass"] == pytest.approx((rewards >= t["threshold"]).mean(), abs=1 / 24)


def test_texts_may_end_early(source: Path) -> None:
    """Lengths differ, columns are there, and per-token values divide by a text's own tokens."""
    played = Played(tiny(source, **{"p_star.ends": True, "p_star.keep": None}))
    shards = [played.load(n.key).arrays for n in played.of_kind("draw") if n.settings["purpose"] == "data"]
    lengths = np.concatenate([s["lengths"] for s in shards])
    assert 1 <= lengths.min() < 6
    for node in played.of_kind("measure"):
        meta = played.load(node.key).meta
        assert abs(meta["entropy_per_token"]) > abs(meta["entropy"]) / 6


def test_a_scale_shrinks_all_counts_together(source: Path) -> None:
    plan = plan_study(tiny(source, scale=0.5, **{"p_star.samples": 64}), WORLD)
    settings = {n.kind: n.settings for n in plan.nodes.values()}
    assert settings["sft"]["samples"] == 32 and settings["sft"]["updates"] == 8
    assert settings["align"]["updates"] == 3 and settings["align"]["samples"] == 8
    assert settings["measure"]["samples"] == 12
    assert settings["source"] == plan_study(tiny(source), WORLD).nodes[next(iter(plan.nodes))].settings  # one p_star


def test_a_run_of_it_resumes_and_shows_texts(source: Path, tmp_path: Path) -> None:
    config = tiny(source, recipes=["align-only"])
    owed = dry_run(config, tmp_path / "run")
    assert owed.cost.total.flops > 0 and len(owed.cost.notes) == 3
    assert run(config, tmp_path / "run", ExecutionOptions(workers=0)).status == "complete"
    rows = read(tmp_path / "run" / "records.jsonl")
    assert [r["stage"] for r in rows] == ["sft", "align"] and all(r["status"] == "ok" for r in rows)
    shown = json.loads((tmp_path / "run" / "exhibits.json").read_text())
    assert shown["kind"] == "text" and len(shown["models"]) == 2 and len(shown["truth"]) == 8
    for model in shown["models"].values():
        assert len(model["texts"]) == 8 and model["curves"]["update"]
    more = run(config, tmp_path / "run", ExecutionOptions(workers=0))
    assert more.nothing_to_do
    assert dry_run(config, tmp_path / "run").cost.total.flops == 0


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"p_star.parameters": 7}, "p_star.parameters must be that of"),
        ({"p_star.prompt_tokens": 1}, "p_star.prompt_tokens must be that of"),
        ({"p_star.layers": 3}, "p_star.layers must be that of"),
        ({"p_star.keep": 40}, "a vocabulary of 40 needs as many tokens"),
        ({"p_star.source": "/no/such/model"}, "a model is a directory that exists"),
    ],
)
def test_a_source_that_is_not_what_the_config_says_fails_with_the_cure(
    source: Path, sets: dict[str, Any], words: str
) -> None:
    plan = plan_study(tiny(source).with_values(sets), WORLD)
    node = next(n for n in plan.nodes.values() if n.kind == "source")
    (failure,) = WORLD.run([node], {}.__getitem__)
    assert isinstance(failure, Failure) and words in failure.reason


def test_a_p_star_that_changed_is_not_used(source: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    plan = plan_study(tiny(copy), WORLD)
    node = next(n for n in plan.nodes.values() if n.kind == "source")
    (found,) = WORLD.run([node], {}.__getitem__)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    draw = next(n for n in plan.nodes.values() if n.kind == "draw")
    (failure,) = WORLD.run([draw], {node.key: found}.__getitem__)  # type: ignore[dict-item]
    assert isinstance(failure, Failure) and "has changed since this run began" in failure.reason


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"p_star.keep": 41}, "p_star.keep must be at most p_star.vocabulary"),
        ({"p_star.counted": 3}, "p_star.counted texts of 6 tokens must use p_star.keep (24) tokens"),
        ({"sft.hidden": 18}, "sft.hidden must be a multiple"),
        ({"distil.kv_heads": 3}, "distil.kv_heads must divide"),
        ({"chunk": 3}, "chunk must divide sft.batch"),
        ({"scale": 0}, "scale must be"),
        ({"target.mass": 0.5}, "target.mass must be"),
        ({"p_star.prompt": ""}, "p_star.prompt must have a character"),
    ],
)
def test_bad_settings_are_refused(source: Path, sets: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        tiny(source, **sets)
    assert words in str(refused.value)


def test_every_alignment_is_audited_on_texts_that_measurements_draw_anyway(everything: Played) -> None:
    """Rewards, targets and log-probabilities of an audit against the models themselves."""
    plan = everything.plan
    bare = {k for k, node in plan.nodes.items() if node.kind != "audit"}
    for cell in plan.cells:
        for stage in cell.stages:
            assert (stage.kind == "align") == (stage.audit is not None or stage.unaudited is not None)
    for node in everything.of_kind("audit"):
        assert set(node.inputs.values()) <= bare, "nothing is drawn for an audit alone"
        meta = everything.load(node.key).meta
        assert meta["audit_verdict"] in ("go", "no-go", "insufficient data") and meta["audit_reason"]
    node = next(n for n in everything.of_kind("audit") if n.inputs["reference"] != n.inputs["sft"])
    settings = {"samples": node.settings["samples"]}
    found = draws.audit_draws(settings, node.inputs, "reference", everything.load)
    assert found.teacher is not None and found.preferred is not None
    mean = everything.load(next(
        stage.measure for cell in plan.cells for stage in cell.stages if stage.model == node.inputs["reference"]
    )).meta  # fmt: skip
    assert found.reference is not None and found.reference.in_target is not None
    assert found.reference.reward.mean() == pytest.approx(mean["reward"], rel=1e-5)
    assert found.reference.in_target.mean() == pytest.approx(mean["target_mass"])
    gap = found.reference.logp_reference - found.reference.logp_teacher
    assert gap.mean() == pytest.approx(mean["kl_to_sft"], abs=1e-4)


def test_rollouts_are_what_an_alignment_draws(everything: Played) -> None:
    for cell in everything.plan.cells:
        for stage in cell.stages:
            if stage.audit is not None:
                plan = everything.plan.nodes[stage.audit].settings["plan"]
                made, settings = everything.load(stage.model).meta, everything.plan.nodes[stage.model].settings
                drawn = 2 * settings["pairs"] if "pairs" in settings else made["samples"]
                assert plan["rollouts"] == drawn, plan
