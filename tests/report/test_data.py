from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report.exhibit_shapes import SHAPES
from alignfirst.report.payload import EXTRAS, failures, payload
from alignfirst.report.run_files import load
from alignfirst.stats import METRICS, summarise

CLOSE = {"rel": 5e-4, "abs": 1e-12}  # four significant digits


@pytest.fixture(scope="module")
def data(built: Path) -> dict[str, Any]:
    return payload(load(built))


def cells_of(data: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The payload's cells by their names, as the page decodes them."""
    c = data["cells"]
    found = {}
    for i in range(len(c["r"])):
        a, b = c["a"][i], c["b"][i]
        key = (
            data["recipes"][c["r"][i]]["name"], data["algorithms"][a] if a >= 0 else None,
            data["betas"][b] if b >= 0 else None, c["i"][i],
        )  # fmt: skip
        found[key] = {n: c[n][i] for n in c if n not in METRICS} | {m: {k: c[m][k][i] for k in c[m]} for m in METRICS}
    return found


def near(value: Any) -> Any:
    """A number, a null or a list of both, up to what the page rounds."""
    if isinstance(value, list):
        return [near(v) for v in value]
    return None if value is None else pytest.approx(value, **CLOSE)


def test_every_cell_reaches_the_page_with_its_statistics(built: Path, data: dict[str, Any]) -> None:
    cells = cells_of(data)
    statistics = load(built).statistics["cells"]
    assert len(cells) == len(statistics)
    for s in statistics:
        cell = cells[s["recipe"], s["algorithm"], s["beta"], s["stage_index"]]
        assert (cell["n"], cell["failed"], bool(cell["final"])) == (s["n"], s["failed"], s["final"])
        for m in METRICS:
            for k in ("mean", "sd", "low", "high", "iqm"):
                assert cell[m][k] == near(s[m][k]), (m, k)
            assert data["pool"][cell[m]["values"]] == near(s[m]["values"])
        assert data["pool"][cell["seeds"]] == s["seeds"]


def test_columns_that_the_statistics_lack_are_means_of_the_records(built: Path, data: dict[str, Any]) -> None:
    run = load(built)
    cell = cells_of(data)["align-distil", "grpo", 0.1, 1]
    rows = [
        r for r in run.rows
        if (r["recipe"], r["algorithm"], r["beta"], r["stage_index"]) == ("align-distil", "grpo", 0.1, 1)
    ]  # fmt: skip
    for name in EXTRAS:
        known = [r[name] for r in rows if r[name] is not None]
        assert cell[name] == pytest.approx(sum(known) / len(known), **CLOSE), name


def test_every_difference_and_claim_reaches_the_page(built: Path, data: dict[str, Any]) -> None:
    run = load(built)
    pairs, claims = data["pairs"], data["claims"]
    assert len(pairs["mean"]) == len(run.statistics["pairs"])
    for i, p in enumerate(run.statistics["pairs"]):
        assert data["algorithms"][pairs["a"][i]] == p["algorithm"] and METRICS[pairs["m"][i]] == p["metric"]
        for k in ("mean", "low", "high", "share_won"):
            assert pairs[k][i] == near(p[k])
    assert claims["verdict"] == [c["verdict"] for c in run.statistics["claims"]]
    assert [claims["claims"][c]["claim"] for c in claims["c"]] == [c["claim"] for c in run.statistics["claims"]]


def test_theory_is_averaged_over_rows_that_are_ok(synthetic: ModuleType, tmp_path: Path) -> None:
    """A prediction is there before a training fails, and stays in its row: the seed is lost to every column alike."""
    lost = {("align-distil", "grpo", 0.1, 1): "diverged"}
    spec = synthetic.Spec(seeds=3, algorithms=("grpo",), betas=(0.1,), failures=lost)
    run = load(synthetic.write(tmp_path / "run", spec))
    (failed,) = [r for r in run.rows if r["status"] == "failed"]
    named = ("exact_reward", "predicted_reward", "beta_c")
    rows = [r | dict.fromkeys(named, 100.0) if r is failed else r for r in run.rows]
    edited = dataclasses.replace(run, rows=rows, statistics=summarise(rows, run.varied))
    cell = cells_of(payload(edited))["align-distil", "grpo", 0.1, failed["stage_index"]]
    ok = [
        r for r in run.rows
        if (r["recipe"], r["stage_index"], r["status"]) == (failed["recipe"], failed["stage_index"], "ok")
    ]  # fmt: skip
    assert len(ok) == cell["n"] == 2
    for name in named:
        assert cell[name] == pytest.approx(sum(r[name] for r in ok) / 2, **CLOSE), name


def test_differences_stand_under_their_recipe(synthetic: ModuleType, tmp_path: Path) -> None:
    """Each recipe less distil-align: those of the two orders are align-distil's, once, and every other has its own."""
    recipes = ("align-distil", "distil-align", "distil-align-rehearsed", "distil-align-anchored")
    spec = synthetic.Spec(seeds=3, recipes=recipes, algorithms=("grpo",), betas=(0.1,))
    run = load(synthetic.write(tmp_path / "run", spec))
    data = payload(run)
    p = data["pairs"]
    shown = {
        (data["recipes"][r]["name"], METRICS[m]): mean for r, m, mean in zip(p["r"], p["m"], p["mean"], strict=True)
    }
    expected = {("align-distil", q["metric"]): q["mean"] for q in run.statistics["pairs"]}
    expected |= {(q["recipe"], q["metric"]): q["mean"] for q in run.statistics["recipes"]}
    assert {recipe for recipe, _ in expected} == set(recipes) - {"distil-align"}
    assert len(p["r"]) == len(shown)
    assert shown == {key: near(mean) for key, mean in expected.items()}


def test_a_cell_shows_its_own_models(built: Path, data: dict[str, Any]) -> None:
    run = load(built)
    cells = cells_of(data)
    assert data["exhibits"]["seeds"] == [0, 1, 2, 3, 4]
    for row in [r for r in run.rows if r["seed"] < 5]:
        cell = cells[row["recipe"], row["algorithm"], row["beta"], row["stage_index"]]
        weights = data["exhibits"]["models"][data["pool"][cell["models"]][str(row["seed"])]][0]
        assert weights == pytest.approx(run.exhibits["models"][row["model"]]["weights"], rel=5e-3, abs=1e-9)


def test_equal_lists_are_stored_once(data: dict[str, Any]) -> None:
    texts = [json.dumps(x, sort_keys=True) for x in data["pool"]]
    assert len(texts) == len(set(texts))


def test_an_unknown_kind_of_exhibit_is_named_and_not_dropped(synthetic: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(seeds=2, algorithms=("grpo",), betas=(0.1,), exhibits_kind="sample texts")
    data = payload(load(synthetic.write(tmp_path / "run", spec)))
    assert "sample texts" not in SHAPES
    assert data["exhibits"]["kind"] == "sample texts" and data["exhibits"]["models"] == []


def test_varied_values_may_be_lists(synthetic: ModuleType, tmp_path: Path) -> None:
    targets = [[[1, 1]], [[-1, -1], [1, 1]]]
    spec = synthetic.Spec(seeds=2, algorithms=("grpo",), betas=(0.1,), vary={"p_star.targets": targets})
    data = payload(load(synthetic.write(tmp_path / "run", spec)))
    assert data["study"]["variants"] == [[json.dumps(t)] for t in targets]
    assert set(data["cells"]["v"]) == {0, 1}


def test_failed_rows_come_first_with_their_reason(synthetic: ModuleType, tmp_path: Path) -> None:
    lost = {("align-distil", "grpo", 0.1, 1): "diverged", ("distil-align", "grpo", 0.1, 0): "NaN"}
    spec = synthetic.Spec(seeds=3, algorithms=("grpo",), betas=(0.1,), failures=lost)
    run = load(synthetic.write(tmp_path / "run", spec))
    rows = failures(run)
    assert [(r["status"], r["error"]) for r in rows[:2]] == [("failed", "diverged"), ("failed", "NaN")]
    assert {r["status"] for r in rows[2:]} == {"blocked"}
    cell = cells_of(payload(run))["align-distil", "grpo", 0.1, 2]
    assert (cell["n"], cell["failed"]) == (2, 1)
