"""Numbers that are none: a run that meets them says so, and its files never hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger import Count

from alignfirst.api import run
from alignfirst.auditing.logprob_table import read
from alignfirst.errors import InputError

Counter = Callable[[str], Count]
SMALL = {
    "recipes": ["align-distil", "distil-align"], "sft.samples": 100, "sft.components": 4, "distil.samples": 100,
    "preferences.pairs": 32, "align.samples": 16,
}  # fmt: skip


def strictly(text: str) -> Any:
    """JSON as the standard has it: no NaN, no infinity."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} in a JSON file")

    return json.loads(text, parse_constant=refuse)


def numbers(value: Any) -> list[float]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [n for v in values for n in numbers(v)] + ([value] if isinstance(value, float) else [])


DIVERGING = {
    "the largest step": {"align.learning_rate": 1.0, "align.updates": 300, "beta": 1e-5},
    "no anchor": {"align.learning_rate": 1.0, "align.updates": 300, "beta": 1e-5, "align.min_sd": 1e-3},
    "all anchor": {"align.learning_rate": 1.0, "beta": 1e5, "align.updates": 100},
    "the steepest labels": {
        "preferences.scale": 1000.0,
        "align.learning_rate": 1.0,
        "align.updates": 100,
        "beta": 1e-5,
    },
    "the narrowest reward": {"reward.width": 0.02, "beta": 1e-5, "align.updates": 100, "align.learning_rate": 1.0},
    "the sharpest teacher": {
        "distil.selectivity": 100.0,
        "beta": 1e-5,
        "align.updates": 20,
        "align.learning_rate": 1.0,
    },
}


@pytest.mark.parametrize("name", DIVERGING)
def test_training_that_diverges(name: str, tmp_path: Path, count: Counter) -> None:
    """Settings at which training runs away give finite numbers, or rows that say why they have none; no JSON file of
    the run holds a NaN or an infinity."""
    settings = SMALL | {"seeds": 2, "algorithms": ["reinforce", "grpo", "ppo", "dpo-offline", "ipo"]} | DIVERGING[name]
    with count("numbers: diverging training").trial():
        done = run("mog-quick", out=tmp_path / "run", workers=0, set=settings)
        for row in done.records:
            assert (row["status"] == "ok") == (row["error"] is None)
            assert row["status"] != "ok" or (row["reward"] is not None and math.isfinite(row["reward"]))
        for path in (tmp_path / "run").glob("*.json*"):
            for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                assert all(math.isfinite(n) for n in numbers(strictly(line)))


@pytest.mark.parametrize("seeds", [1, 2, 4, 5])
def test_intervals_from_too_few_seeds(seeds: int, tmp_path: Path, count: Counter) -> None:
    """A study of fewer than five seeds has no interval, no p and no verdict but "insufficient"; one of five has."""
    few = SMALL | {"seeds": seeds, "algorithms": ["reinforce"], "beta": [0.1, 0.2], "align.updates": 10}
    with count("numbers: intervals from few seeds").trial():
        statistics = run("mog-quick", out=tmp_path / "run", workers=0, set=few).statistics
        judged = [part for name, part in statistics.items() if name != "windows"]  # their bounds are betas
        found = [entry for part in judged for entry in intervals(part)]
        assert found, "nothing to look at"
        known = [entry for entry in found if any(entry[k] is not None for k in ("low", "high", "p") if k in entry)]
        assert bool(known) == (seeds >= 5)
        verdicts = {claim["verdict"] for claim in statistics["claims"]}
        assert verdicts
        assert (verdicts == {"insufficient"}) == (seeds < 5)


def intervals(value: Any) -> list[dict[str, Any]]:
    """Every object with bounds, however deep."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inner = [found for v in values for found in intervals(v)]
    return [*inner, value] if isinstance(value, dict) and {"low", "high"} <= value.keys() else inner


@pytest.mark.parametrize("column", ["logp_reference", "logp_teacher", "reward", "rarest_logp"])
@pytest.mark.parametrize("value", ["-Infinity", "Infinity", "NaN", '"-1.5"', "[-1]", "true", "1e999", "9" * 400])
def test_log_probabilities_that_are_none(column: str, value: str, tmp_path: Path, count: Counter) -> None:
    """A row whose number is an infinity, NaN, text or a list is refused by its line, not left out and not guessed."""
    good = {"kind": "sample", "source": "reference", "logp_reference": -1.0, "reward": 1.0}
    bad = json.dumps(good | {column: "HERE"}).replace('"HERE"', value)
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(good)}\n{bad}\n")
    with count("numbers: log-probabilities").trial(), pytest.raises(InputError, match=rf"{column} must be .* line 2"):
        read(path)
