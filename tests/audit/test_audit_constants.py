"""Sentences follow the constants that decide, and constants that happen to be equal decide apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from alignfirst.auditing import constants, order, sentences, verdict
from alignfirst.auditing.gated_prediction import Evidence, Plan, examine, predict
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.auditing.window import needs
from alignfirst.theory import coverage

PREFERRED = [1.0] * 50
ENOUGH = 10**6  # rollouts


def evidence(hits: int, n: int = 400) -> Evidence:
    """Plain draws; a hit earns 1, a miss 0, a trifle of noise apart."""
    hit = np.arange(n) < hits
    return examine(gather(Sample.of(hit + 1e-6 * np.sin(np.arange(n)), hit), preferred=PREFERRED))


def judged(hits: int, rollouts: int = ENOUGH) -> verdict.Verdict:
    found = evidence(hits)
    return verdict.judge(found, predict(found, Plan("reinforce", 0.15, rollouts)))


def test_hits_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(10).call == "go"
    monkeypatch.setattr(verdict, "MIN_HITS", 12)
    found = judged(10)
    assert found.because == "10 of 400 draws hit the target, fewer than 12"
    assert "until there are 12 hits" in found.todo[0] and "10 hits" not in found.todo[0]


def test_hits_expected_are_another_constant_than_hits_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "MIN_EXPECTED_HITS", 2 * ENOUGH)
    assert judged(40).because.startswith("only 1e+05 hits are expected")
    monkeypatch.undo()
    monkeypatch.setattr(coverage, "EXPECTED_DRAWS", 2 * ENOUGH)  # decides the name of a trap, and no verdict
    assert judged(40).call == "go"
    assert coverage.classify_trap(0.1, 0.9, 0.1, ENOUGH) == "sampling"


def test_the_order_has_a_number_of_hits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten hits among the teacher's draws allow a call, whatever a verdict asks for."""
    hit = np.arange(400) < 10
    teacher = Sample.of(hit.astype(float), hit, logp_teacher=np.zeros(400))
    own = evidence(40)
    found = predict(own, Plan("reinforce", 0.15, ENOUGH))
    monkeypatch.setattr(verdict, "MIN_HITS", 20)
    assert order.order(teacher, own, found, found, 1.0, 1_000).call != "insufficient data"
    monkeypatch.setattr(order, "ORDER_MIN_HITS", 11)
    refused = order.order(teacher, own, found, found, 1.0, 1_000)
    assert refused.because == "10 of the teacher's own draws hit the target, fewer than 11"


def test_seen_at_least_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = evidence(40)
    found = predict(own, Plan("reinforce", 0.15, ENOUGH))
    monkeypatch.setattr(sentences, "SEEN", 0.9)

    class Judged:
        prediction, plan = found, found.plan

    Judged.needs = needs(own, found)
    assert next(sentences._needs([Judged])).startswith("draws that show the target once, with 90 %: ")


def test_every_number_that_decides_stands_in_one_file() -> None:
    """No other module of the audit gives a number a name of its own, but for the few that no decision rests on."""
    technical = {
        "PIECE",
        "VERSION",
        "SMALL",
        "LISTED",
        "ROUNDING",
        "MAX_REWARD",
        "WORST",
        "SHOWN_WORST",
        "SHOWN_TOKENS",
    }
    named = re.compile(r"^([A-Z][A-Z_]+)(?:: \w+)? = (?:-|\()?\d", re.MULTILINE)
    for file in Path(constants.__file__).parent.glob("*.py"):
        if file.name != "constants.py":
            assert set(named.findall(file.read_text())) <= technical | {"BETAS"}, file.name
