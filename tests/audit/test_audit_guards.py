"""What forbids `go` whatever is predicted: each guard where only it refuses, with the reason that it gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from alignfirst.auditing import constants
from alignfirst.auditing.gated_prediction import Evidence, Plan, examine, predict
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.auditing.verdict import judge

PREFERRED = [1.0] * 50
ENDLESS = 10**6  # rollouts: the gate is open


def plain(hits: int, n: int) -> Evidence:
    """Plain draws; a hit earns 1, a miss 0, a trifle of noise apart."""
    hit = np.arange(n) < hits
    return examine(gather(Sample.of(hit + 1e-6 * np.sin(np.arange(n)), hit), preferred=PREFERRED))


def pooled(off: float, n: int = 2_000) -> Evidence:
    """Mass 0.05 under the reference and 0.5 under the teacher, whose log-probabilities are `off` nats too high."""

    def sample(own: float) -> Sample:
        hit = np.arange(n) < own * n
        p = np.full(n, math.log(0.5) + off)
        return Sample.of(hit, hit, logp_reference=np.log(np.where(hit, 0.05, 0.95)), logp_teacher=p)

    return examine(gather(sample(0.05), sample(0.5), PREFERRED))


def balance(off: float) -> float:
    """What the weights q / (n q + n p e^off) of n draws of q and n of p sum to."""
    return sum((q + 0.5) * q / (q + 0.5 * math.exp(off)) for q in (0.05, 0.95))


@pytest.mark.parametrize("beta", [0.15, 0.16, 0.17])
def test_nine_hits_are_never_a_go_and_ten_may_be(beta: float) -> None:
    """At betas at which the tilt rests on draws enough, so that the number of hits alone refuses."""
    plan = Plan("reinforce", beta, ENDLESS)
    for hits, call, words in (
        (9, "insufficient data", "9 of 400 draws hit the target, fewer than 10"),
        (10, "go", "the target is predicted to reach"),
    ):
        evidence = plain(hits, 400)
        found = predict(evidence, plan)
        assert found.ess is not None and found.ess >= constants.MIN_ESS
        assert found.mass.low is not None and found.mass.low > constants.SUCCESS
        verdict = judge(evidence, found)
        assert verdict.call == call and verdict.because.startswith(words), hits


@pytest.mark.parametrize("off", [-1.0, 0.0, 1.0])
def test_weights_that_do_not_add_up_are_never_a_go(off: float) -> None:
    """A teacher whose log-probabilities are one nat off: scored on other tokens than it drew."""
    evidence = pooled(off)
    found = predict(evidence, Plan("reinforce", 0.1, ENDLESS))
    assert found.mass.low is not None and found.mass.low > constants.SUCCESS
    verdict = judge(evidence, found)
    assert evidence.draws.raw_total.value == pytest.approx(balance(off), rel=1e-9)
    if off:
        words = f"weights sum to {balance(off):.2f}, not 1: draws and log-probabilities disagree"
        assert verdict.call == "insufficient data" and verdict.because == words
        assert any("temperature 1" in cure for cure in verdict.todo)
    else:
        assert verdict.call == "go"


@pytest.mark.parametrize(
    ("anchor", "because"),
    [
        (plain(9, 400), "9 of 400 draws hit the target, fewer than 10"),
        (pooled(1.0), f"weights sum to {balance(1.0):.2f}, not 1: draws and log-probabilities disagree"),
        (plain(10, 400), None),
        (pooled(0.0), None),
    ],
    ids=["few hits", "off balance", "hits enough", "in balance"],
)
def test_the_draws_of_an_anchor_must_be_trusted_too(anchor: Evidence, because: str | None) -> None:
    """The optimum is the anchor's, so its draws decide as much as those of the model that will draw the rollouts."""
    evidence = replace(plain(200, 400), anchor=anchor)
    found = predict(evidence, Plan("reinforce", 0.15, ENDLESS))
    assert found.ess is not None and found.ess >= constants.MIN_ESS
    assert found.mass.low is not None and found.mass.low > constants.SUCCESS
    verdict = judge(evidence, found)
    if because is None:
        assert verdict.call == "go"
    else:
        assert verdict.call == "insufficient data" and verdict.because == because


@pytest.mark.parametrize("algorithm", list(constants.GATES))
def test_without_rollouts_the_low_end_is_that_of_nothing_found(algorithm: str) -> None:
    """Whether the target is found nobody has said: from the reference as it is to its optimum, model error apart."""
    evidence = plain(800, 4_000)
    m0, found = evidence.mass, predict(evidence, Plan(algorithm, 0.3))
    assert m0.low is not None and found.mass.low is not None and found.mass.high is not None
    assert found.optimum is not None and found.optimum.mass.low is not None and found.optimum.mass.high is not None
    assert found.mass.low <= m0.low < found.optimum.mass.low
    log_odds = math.log(constants.ODDS)
    assert found.mass.low == pytest.approx(expit(logit(m0.low) - log_odds) - constants.MASS_SLACK)
    high = expit(logit(found.optimum.mass.high) + log_odds) + constants.MASS_SLACK
    assert found.mass.high == pytest.approx(min(high, 1.0))
