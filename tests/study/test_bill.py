"""A bill adds up what nodes cost, and says hours by the shares that it states."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alignfirst import worlds
from alignfirst.cli.app import app
from alignfirst.study.bill import GPUS, UTILISATION, Bill, Line, bill, line_label
from alignfirst.study.config import preset_files
from alignfirst.study.plan.planner import plan_study
from alignfirst.world import Price


def test_hours_are_operations_over_the_stated_share_of_the_peak() -> None:
    price = Price(sampling=1e18, scoring=2e18, training=3e18)
    total = Bill((Line("sft", "", 1, price), Line("draw", "data", 1, Price(sampling=1e18))), ())
    seconds = 2e18 / (0.02 * 312e12) + 2e18 / (0.3 * 312e12) + 3e18 / (0.2 * 312e12)
    assert (UTILISATION, GPUS["A100 80 GB"]) == ({"sampling": 0.02, "scoring": 0.3, "training": 0.2}, 312e12)
    assert total.hours("A100 80 GB") == pytest.approx(seconds / 3600)
    assert total.total.flops == 7e18


def test_a_bill_counts_every_node_once_under_its_kind_and_label() -> None:
    config = preset_files.load("smollm2", ["scale=0.001"])
    world = worlds.get("chain")
    plan = plan_study(config, world)
    found = bill(world, config, plan.nodes, plan.nodes)
    assert found is not None and sum(line.nodes for line in found.lines) == len(plan.nodes)
    prices = [world.price(node, plan.nodes) for node in plan.nodes.values()]
    expected = sum((price for price in prices if price is not None), Price())
    assert None not in prices
    assert found.total.sampled == expected.sampled and found.total.stored == expected.stored
    assert found.total.flops == pytest.approx(expected.flops)
    assert {(n.kind, line_label(n)) for n in plan.nodes.values()} == {(x.kind, x.label) for x in found.lines}


def test_operations_are_the_papers_formula_at_full_size() -> None:
    """sft: 6 x 361,821,120 weights x 5 epochs of 10 million texts of 513 tokens, and 20 looks at 10,000 held out."""
    config = preset_files.load("smollm2", ["seeds=1"])
    plan = plan_study(config, worlds.get("chain"))
    found = bill(worlds.get("chain"), config, plan.nodes, plan.nodes)
    assert found is not None
    (sft,) = [line for line in found.lines if line.kind == "sft"]
    texts = 195_313 * 256  # updates are whole batches
    assert sft.price.trained == texts * 513 and sft.price.scored == 20 * 10_000 * 513
    assert sft.price.flops == 361_821_120 * 513 * (6 * texts + 2 * 200_000)


def test_worlds_that_cannot_tell_have_no_bill() -> None:
    config = preset_files.load("mog-quick")
    plan = plan_study(config, worlds.get("mog"))
    assert bill(worlds.get("mog"), config, plan.nodes, plan.nodes) is None


def test_a_dry_run_prints_it_and_leaves_nothing_behind(tmp_path) -> None:
    out = str(tmp_path / "run")
    shown = CliRunner().invoke(app, ["run", "smollm2", "--dry-run", "--out", out])
    assert shown.exit_code == 0, shown.output
    for words in ("dpo-offline", "teacher-held-out", "hours of one H100", "not measured", "tokens a weight of sft"):
        assert words in shown.output
    data = CliRunner().invoke(app, ["run", "smollm2", "--dry-run", "--json", "--out", out, "--set", "scale=0.01"])
    total = json.loads(data.output)["bill"]["total"]
    assert total["flops"] > 1e19 and not (tmp_path / "run").exists()
