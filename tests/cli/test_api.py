"""The Python interface: run, load, compare."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import alignfirst
from alignfirst.errors import InputError, StoreError
from alignfirst.stats.comparison import compare


def tiny(out: Path, **keys: object) -> alignfirst.Run:
    base = {
        "extends": "mog-quick", "algorithms": "reinforce", "beta": 0.1, "seeds": 5, "align.updates": 5,
        "sft.samples": 100, "sft.components": 4, "distil.samples": 100,
    }  # fmt: skip
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return alignfirst.run(base | dotted, out=out, workers=0)


def test_a_run_has_what_its_files_say(finished: alignfirst.Run) -> None:
    assert finished.status == "complete"
    assert len(finished.records) == finished.manifest["counts"]["rows"] == 60
    assert finished.statistics["claims"] == finished.claims
    assert {c["verdict"] for c in finished.claims} <= {"holds", "reversed", "undecided", "insufficient"}
    assert finished.config.preset == "mog-quick"
    assert "complete, 60 records" in repr(finished)


def test_loaded_is_the_same(finished: alignfirst.Run) -> None:
    loaded = alignfirst.load(finished.path)
    assert (loaded.records, loaded.claims, loaded.config) == (finished.records, finished.claims, finished.config)


def test_report(finished: alignfirst.Run, elsewhere: Path) -> None:
    run = alignfirst.load(shutil.copytree(finished.path, elsewhere / "copy"))
    assert run.report() == elsewhere / "copy" / "report.html"
    assert run.report().stat().st_size > 10_000


def test_what_is_no_run_or_not_what_was_written(finished: alignfirst.Run, elsewhere: Path) -> None:
    with pytest.raises(InputError, match="must hold a manifest"):
        alignfirst.load(elsewhere)
    copy = shutil.copytree(finished.path, elsewhere / "copy")
    with (copy / "records.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(StoreError, match="is not what the run wrote"):
        alignfirst.load(copy).claims  # noqa: B018


def test_the_same_study_has_the_same_records_in_any_process(finished: alignfirst.Run, elsewhere: Path) -> None:
    again = alignfirst.run(finished.config, out=elsewhere / "again", workers=2)
    assert (again.path / "records.jsonl").read_bytes() == (finished.path / "records.jsonl").read_bytes()


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        alignfirst.nonsense  # noqa: B018


def test_compare_pairs_seeds_and_finds_varied_points(elsewhere: Path) -> None:
    one = tiny(elsewhere / "one", distil__components=2)
    two = tiny(elsewhere / "two", distil__components=[2, 3], seeds=6)
    found = compare(one, two)
    assert found.config == {
        "seeds": ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]),
        "distil.components": (2, [2, 3]),
    }
    assert {d["distil.components"] for d in found.differences} == {2}
    assert {d["n"] for d in found.differences} == {5}
    assert all(d["difference"] == 0 for d in found.differences)  # the same seeds, hence the same models
    assert (found.only_left, found.only_right) == (0, 6)


def test_compare_gives_differences_their_interval(elsewhere: Path) -> None:
    left, right = tiny(elsewhere / "left"), tiny(elsewhere / "right", align__updates=60)
    found = compare(left, right)
    [row] = [
        d for d in found.differences if d["metric"] == "reward" and d["stage_index"] == 1 and d["stage"] == "align"
    ]
    by_seed = [
        [r["reward"] for r in run.records if r["stage"] == "align" and r["stage_index"] == 1] for run in (left, right)
    ]
    expected = sum(b - a for a, b in zip(*by_seed, strict=True)) / 5
    assert row["difference"] == pytest.approx(expected, rel=1e-12)
    assert row["low"] < row["difference"] < row["high"]
    back = {tuple(map(str, list(d.values())[:7])): d for d in compare(right, left).differences}
    assert back[tuple(map(str, list(row.values())[:7]))]["difference"] == pytest.approx(-expected, rel=1e-12)


def test_compare_without_a_shared_seed_has_no_interval(elsewhere: Path) -> None:
    left, right = tiny(elsewhere / "left"), tiny(elsewhere / "right", seeds=[7, 8, 9, 10, 11])
    for d in compare(left, right).differences:
        assert (d["n"], d["low"]) == (0, None)
        assert "no seed in common" in d["note"]
        assert d["difference"] == pytest.approx(d["right"] - d["left"])


def test_a_dataframe_where_pandas_is_present(finished: alignfirst.Run) -> None:
    pytest.importorskip("pandas", reason="DataFrames need pandas")
    table = finished.dataframe()
    assert list(table["reward"]) == [row["reward"] for row in finished.records]


def test_without_pandas_it_says_so(finished: alignfirst.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        finished.dataframe()


def test_a_model_is_the_one_that_was_measured(finished: alignfirst.Run) -> None:
    rows = [r for r in finished.records if r["recipe"] == "align-distil" and r["seed"] == 3 and r["final"]]
    row = next(r for r in rows if r["algorithm"] == "reinforce")
    model = finished.model("align-distil", algorithm="reinforce", seed=3)
    rng, n = np.random.default_rng(0), 20_000
    k = rng.choice(len(model.weights), n, p=model.weights / model.weights.sum())
    x = model.means[k] + model.sds[k] * rng.standard_normal((n, 2))
    reward = np.exp(-((x - 1.0) ** 2).sum(1) / (2 * 0.25**2))
    assert abs(reward.mean() - row["reward"]) < 5 * reward.std() / n**0.5
    sft = finished.model("align-distil", algorithm="dpo-offline", seed=3, stage=0)
    assert len(sft.weights) == 8
    assert row["model"] != next(r for r in rows if r["algorithm"] == "dpo-offline")["model"]


def test_a_model_must_be_one(finished: alignfirst.Run) -> None:
    with pytest.raises(InputError, match=r"differ in algorithm.*reinforce, dpo-offline"):
        finished.model("align-distil")
    with pytest.raises(InputError, match="There is align-distil"):
        finished.model("align-distill")
    with pytest.raises(InputError, match="seed must be one of"):
        finished.model("align-distil", algorithm="reinforce", seed=77)


def test_events_tell_what_happened(finished: alignfirst.Run) -> None:
    lines = (finished.path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events[:2]] == ["start", "plan"] and events[-1]["event"] == "end"
    tasks = [e for e in events if e["event"] == "task"]
    assert sum(t["nodes"] for t in tasks) == finished.manifest["counts"]["nodes"] == tasks[-1]["settled"]


@pytest.mark.parametrize("order", [("alignfirst.audit", "rooms"), ("rooms", "alignfirst.audit")])
def test_the_audit_is_a_function_whatever_was_imported_before(order: tuple[str, str]) -> None:
    steps = {
        "rooms": "import alignfirst.auditing.findings, alignfirst.study.audit.request, alignfirst.report.audit.page",
        "alignfirst.audit": "from alignfirst import audit; assert callable(audit)",
    }
    code = "; ".join(["import alignfirst", *(steps[step] for step in order), "assert callable(alignfirst.audit)"])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
