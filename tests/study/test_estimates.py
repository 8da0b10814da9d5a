"""What a plan will cost adds up what its nodes cost, and says hours by the shares that it states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignfirst import worlds
from alignfirst.cli.app import app
from alignfirst.costs.hardware import GPUS, UTILISATION, gpu_hours
from alignfirst.costs.price import Price
from alignfirst.study.config import preset_files
from alignfirst.study.execution.estimates import CostEstimate, CostLine, NodeSeconds, estimate_cost
from alignfirst.study.plan.planner import plan_study
from alignfirst.worlds.mog import work

A100 = "A100 80 GB"


def estimated(preset: str, *sets: str) -> tuple[CostEstimate, Price]:
    """The estimate of a whole study, and the sum over its nodes one by one."""
    config = preset_files.load(preset, list(sets))
    world = worlds.get(config.world)
    nodes = plan_study(config, world).nodes
    alone = sum((world.price(node, nodes) for node in nodes.values()), Price())
    found = estimate_cost(world, config, nodes, nodes)
    assert {(n.kind, n.label) for n in nodes.values()} == {(x.kind, x.label) for x in found.lines}
    assert sum(line.nodes for line in found.lines) == len(nodes)
    return found, alone


def test_hours_are_operations_over_the_stated_share_of_the_peak() -> None:
    price = Price(sampling=1e18, scoring=2e18, training=3e18)
    total = CostEstimate(
        (CostLine("sft", "", 1, price), CostLine("draw", "data", 1, Price(sampling=1e18))), gpus=(A100,)
    )
    seconds = 2e18 / (0.02 * 312e12) + 2e18 / (0.3 * 312e12) + 3e18 / (0.2 * 312e12)
    assert (UTILISATION, GPUS[A100]) == ({"sampling": 0.02, "scoring": 0.3, "training": 0.2}, 312e12)
    assert total.gpu_hours == {A100: pytest.approx(seconds / 3600)}
    assert total.total.flops == 7e18 and gpu_hours(Price(), A100) == 0


@pytest.mark.parametrize(("preset", "sets"), [("smollm2", ("scale=0.001",)), ("mog-quick", ()), ("grammar-quick", ())])
def test_an_estimate_counts_every_node_once_under_its_kind_and_label(preset: str, sets: tuple[str, ...]) -> None:
    found, alone = estimated(preset, *sets)
    assert (found.total.sampled, found.total.stored) == (alone.sampled, alone.stored)
    assert found.total.flops == pytest.approx(alone.flops) and alone.flops > 0


def test_operations_are_the_formula_at_full_size() -> None:
    """sft: 5 epochs of 10 million texts of 513 tokens, 32 layers of width 960, and 20 looks at 10,000 held out.

    2 operations a weight and token forward, 4 back; attention over squares; the head once more than thrice, as 8 texts
    of 512 logits over 49,152 tokens are computed twice.
    """
    found, _ = estimated("smollm2", "seeds=1")
    (sft,) = [line for line in found.lines if line.kind == "sft"]
    texts = 195_313 * 256  # updates are whole batches
    assert sft.price.trained == texts * 513 and sft.price.scored == 20 * 10_000 * 513
    head = 49_152 * 960
    body = 361_821_120 - head - 65 * 960  # norms multiply nothing
    forward = 512 * (2 * body + 2 * head) + 4 * 32 * 960 * 512**2
    assert sft.price.scoring == pytest.approx(20 * 10_000 * forward, rel=1e-12)
    assert sft.price.training == pytest.approx(texts * (3 * forward + 512 * 2 * head), rel=1e-12)


def test_mixtures_are_priced_in_points_and_no_gpu_is_named() -> None:
    config = preset_files.load("mog-quick")
    world = worlds.get("mog")
    nodes = plan_study(config, world).nodes
    found = estimate_cost(world, config, nodes, nodes)
    assert found.unit == "points" and found.gpu_hours == {}
    s = config.align
    for node in nodes.values():
        if node.settings.get("algorithm") == "ppo":
            price = world.price(node, nodes)
            assert price.sampled == s.updates // s.ppo_epochs * s.samples and price.trained == s.updates * s.samples


def test_what_mixtures_took_is_what_they_were_priced_at() -> None:
    """But for when EM ends: 44 operations a sample, component and iteration."""
    config = preset_files.load("mog-quick", ["align.updates=8", "preferences.pairs=64", "seeds=1", "sft.samples=500"])
    world = worlds.get("mog")
    nodes, found = plan_study(config, world).nodes, {}
    for key, node in nodes.items():
        if node.kind in ("sft", "distil", "align"):
            (found[key],) = work.RUN[node.kind]([node], found.__getitem__)
            price = world.price(node, nodes)
            if node.kind == "align":
                assert (found[key].meta["flops"], found[key].meta["samples"]) == (price.flops, price.sampled)
            else:
                s, meta = node.settings["fit"], found[key].meta
                assert meta["flops"] == meta["updates"] * s["samples"] * s["components"] * 44
                assert price.flops == 2 * 16 * s["samples"] * s["components"] * 44


def test_seconds_are_those_of_the_price_until_a_task_was_timed() -> None:
    config = preset_files.load("grammar-quick")
    world = worlds.get("grammar")
    nodes = plan_study(config, world).nodes
    sft = next(node for node in nodes.values() if node.kind == "sft")
    assert NodeSeconds(world, nodes)(sft) == world.seconds(world.price(sft, nodes)) > 0
    timed = [{"kind": "sft", "label": "", "nodes": 2, "seconds": 5.0}]
    assert NodeSeconds(world, nodes, timed)(sft) == 2.5


def test_a_dry_run_prints_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    shown = CliRunner().invoke(app, ["run", "smollm2", "--dry-run", "--out", out])
    assert shown.exit_code == 0, shown.output
    for words in ("dpo-offline", "teacher-held-out", "hours of one H100", "not measured", "tokens a weight of sft"):
        assert words in shown.output
    data = CliRunner().invoke(app, ["run", "smollm2", "--dry-run", "--json", "--out", out, "--set", "scale=0.01"])
    total = json.loads(data.output)["bill"]["total"]
    assert total["flops"] > 1e19 and not (tmp_path / "run").exists()
    mixture = CliRunner().invoke(app, ["run", "mog-quick", "--dry-run", "--out", out])
    assert "points" in mixture.output and "hours of one" not in mixture.output
