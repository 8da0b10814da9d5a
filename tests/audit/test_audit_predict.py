"""The gate by hand arithmetic, refusals, and the verdict's rules one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.auditing import constants
from alignfirst.auditing.gated_prediction import Evidence, Plan, examine, needed_hits, predict, ranking, refusal
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.auditing.verdict import draws_to_settle, judge, percent
from alignfirst.auditing.window import beta_window, needs
from alignfirst.errors import InputError
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.theory.tilt import recovery_threshold

PREFERRED = [1.0] * 50


def behaviours(
    mass: float, n: int = 4_000, hit_reward: float = 1.0, preferred: list[float] | None = PREFERRED
) -> Evidence:
    """`n` plain draws of which a share `mass` hits; hits earn `hit_reward`, the rest 0, a trifle of noise apart."""
    hits = round(mass * n)
    hit = np.arange(n) < hits
    noise = 1e-6 * np.sin(np.arange(n))
    return examine(gather(Sample.of(np.where(hit, hit_reward, 0.0) + noise, hit), preferred=preferred))


def test_every_algorithm_is_predicted_or_refused_with_a_reason() -> None:
    for name in ALGORITHMS:
        assert (name in constants.GATES) == (refusal(name, "bradley-terry") is None), name
    assert set(constants.GATES) | set(constants.REFUSED) <= set(ALGORITHMS)
    assert not set(constants.GATES) & set(constants.REFUSED)
    assert set(constants.ON_POLICY) == {n for n in constants.GATES if ALGORITHMS[n].data != "pairs-offline"}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("algorithm", list(constants.GATES))
def test_the_prediction_is_the_gated_tilt(algorithm: str, text: bool) -> None:
    evidence = behaviours(0.01, hit_reward=0.9)
    gates = constants.GATES | (constants.TEXT_GATES if text else {})
    gate, beta, rollouts = gates[algorithm], 0.3, 2_000
    found = predict(evidence, Plan(algorithm, beta, rollouts, text=text))
    m0, s, gap = 0.01, 0.9, 1.0
    at = max(beta, gate.floor * gap)
    odds = m0 / (1 - m0) * math.exp(0.9 / at)
    m_star = odds / (1 + odds)
    h = gate.hits * (beta / (constants.PULL_AT * gap)) ** gate.pull
    g = 1 - math.exp(-rollouts * m0 * s**gate.quality / h)
    assert found.gate.value == pytest.approx(g, rel=1e-4)
    assert found.mass.value == pytest.approx(m0 + g * (m_star - m0), rel=1e-4)
    assert found.reward.value == pytest.approx(0.9 * found.mass.value, rel=1e-4)  # type: ignore[operator]
    for number in (found.mass, found.reward):
        assert number.low is not None and number.value is not None and number.high is not None
        assert number.low <= number.value <= number.high


@pytest.mark.parametrize("algorithm", [*constants.REFUSED, "dpo-offline", "dpo-online"])
def test_what_the_tilt_does_not_describe_is_refused(algorithm: str) -> None:
    plan = Plan(algorithm, 0.1, 10_000, labels="hard")
    found = predict(behaviours(0.1), plan)
    assert found.reward.value is None and found.mass.value is None and found.refused
    verdict = judge(behaviours(0.1), found)
    assert verdict.call == "insufficient data" and verdict.because == found.refused
    assert beta_window(behaviours(0.1), plan).points == ()


def test_hard_labels_do_not_concern_algorithms_that_see_the_reward() -> None:
    assert Plan("ppo", 0.1, 100, labels="hard").refusal is None


@pytest.mark.parametrize(("flip", "scale"), [(0.0, 1.0), (0.2, 1.0), (0.3, 5.0)])
def test_flipped_labels_have_the_optimum_of_their_own_log_odds(flip: float, scale: float) -> None:
    """DPO's margin on two behaviours, science.md: logit(f + (1 - 2 f) sigmoid(k D)) / (k beta)."""
    m0, beta = 0.05, 0.2
    p = flip + (1 - 2 * flip) / (1 + math.exp(-scale))
    odds = m0 / (1 - m0) * math.exp(math.log(p / (1 - p)) / (scale * beta))
    found = predict(behaviours(m0), Plan("dpo-online", beta, 10_000, flip=flip, scale=scale))
    assert found.optimum is not None
    assert found.optimum.mass.value == pytest.approx(odds / (1 + odds), rel=1e-4)
    plain = predict(behaviours(m0), Plan("ppo", beta, 10_000))
    assert predict(behaviours(m0), Plan("ppo", beta, 10_000, flip=flip, scale=scale)).mass == plain.mass


def test_labels_that_say_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="flip must be at least 0 and below"):
        Plan("dpo-online", 0.1, 100, flip=0.5)


def test_the_prediction_does_not_depend_on_the_unit_of_reward() -> None:
    for algorithm in constants.GATES:
        a = predict(behaviours(0.02), Plan(algorithm, 0.1, 5_000))
        scaled = behaviours(0.02, hit_reward=7.0, preferred=[7.0] * 50)
        b = predict(scaled, Plan(algorithm, 0.7, 5_000))
        assert b.mass.value == pytest.approx(a.mass.value, rel=1e-4)
        assert b.reward.value == pytest.approx(7 * a.reward.value, rel=1e-3)  # type: ignore[operator]


@given(st.floats(1e-3, 0.6), st.floats(0.03, 2.0), st.integers(1, 10**7), st.sampled_from(list(constants.GATES)))
def test_more_rollouts_never_predict_less(mass: float, beta: float, rollouts: int, algorithm: str) -> None:
    evidence = behaviours(mass, 1_000)
    few, many = (predict(evidence, Plan(algorithm, beta, n)) for n in (rollouts, 2 * rollouts))
    assert few.mass.value is not None and many.mass.value is not None
    assert 0 <= few.mass.value <= many.mass.value + 1e-12 <= 1 + 1e-9


def test_a_dense_reward_is_a_ladder_that_needs_no_hits() -> None:
    random = np.random.default_rng(0)
    reward = random.normal(0, 1, 4_000)
    evidence = examine(gather(Sample.of(reward, reward > 2.5), preferred=[3.0] * 20))
    dense, sparse = predict(evidence, Plan("grpo", 0.5, 10)), predict(evidence, Plan("grpo", 5.0, 10))
    assert dense.dense and dense.gate.value == 1.0 and "ladder" in str(dense.gate.why)
    assert not sparse.dense and sparse.gate.value is not None and sparse.gate.value < 0.1


def test_without_rollouts_the_optimum_is_told_and_go_is_not() -> None:
    evidence = behaviours(0.2)
    found = predict(evidence, Plan("ppo", 0.1))
    assert found.gate.value is None and found.mass.value == pytest.approx(1.0, abs=1e-3)
    verdict = judge(evidence, found)
    assert verdict.call == "insufficient data" and "rollouts" in verdict.because


def test_a_reference_with_the_target_goes() -> None:
    evidence = behaviours(0.05)
    verdict = judge(evidence, predict(evidence, Plan("reinforce", 0.1, 100_000)))
    assert verdict.call == "go" and verdict.more_draws is None


def test_a_beta_above_the_threshold_stops() -> None:
    evidence = behaviours(0.02)
    assert recovery_threshold(0.02, 1.0) < 0.6
    found = predict(evidence, Plan("reinforce", 0.6, 10**6))
    verdict = judge(evidence, found)
    assert verdict.call == "no-go" and any("beta" in text for text in verdict.todo)


def test_rollouts_that_find_nothing_stop_it_too() -> None:
    evidence = behaviours(0.002)
    verdict = judge(evidence, predict(evidence, Plan("grpo", 0.1, 256)))
    assert verdict.call == "no-go" and any("ollouts" in text for text in verdict.todo)


def test_diffuse_hits_are_never_a_go() -> None:
    evidence = behaviours(0.1, hit_reward=0.5)
    verdict = judge(evidence, predict(evidence, Plan("reinforce", 0.05, 10**6)))
    assert verdict.call == "insufficient data" and "diffuse" in verdict.because


def test_hits_of_unknown_quality_are_never_a_go() -> None:
    evidence = behaviours(0.1, preferred=None)
    verdict = judge(evidence, predict(evidence, Plan("reinforce", 0.05, 10**6)))
    assert verdict.call == "insufficient data" and "unknown" in verdict.because


def test_zero_hits_promise_nothing() -> None:
    evidence = behaviours(0.0)
    for rollouts in (1_000, 10**6):
        found = predict(evidence, Plan("reinforce", 0.05, rollouts))
        verdict = judge(evidence, found)
        assert verdict.call in ("insufficient data", "no-go")
        assert found.mass.value == pytest.approx(0.0, abs=1e-9)
    assert judge(evidence, predict(evidence, Plan("reinforce", 0.05, 10**6))).call == "insufficient data"


def test_a_constant_reward_one_draw_or_no_target_is_insufficient() -> None:
    plan = Plan("ppo", 0.1, 1_000)
    for sample, words in (
        (Sample.of(np.ones(100), np.ones(100, bool)), "same reward"),
        (Sample.of([1.0], [True]), "one draw"),
        (Sample.of(np.arange(100.0)), "no target"),
    ):
        evidence = examine(gather(sample))
        verdict = judge(evidence, predict(evidence, plan))
        assert verdict.call == "insufficient data" and words in verdict.because


def test_a_collapsed_tilt_is_said_and_a_guess_for_ranking_is_capped() -> None:
    random = np.random.default_rng(1)
    reward = random.normal(0, 1, 500)
    evidence = examine(gather(Sample.of(reward, reward > 2), preferred=[3.0] * 10))
    found = predict(evidence, Plan("ppo", 0.02, 10**6))
    verdict = judge(evidence, found)
    assert found.ess is not None and found.ess < 10
    assert verdict.call == "insufficient data" and "effective draws" in verdict.because
    assert verdict.more_draws is not None and verdict.more_draws > 0
    assert ranking(evidence, 0.02) == reward.max()
    assert ranking(evidence, 10.0) == pytest.approx(reward.mean() + reward.var() / 10)


def test_more_draws_that_settle_it_do_settle_it() -> None:
    """The advice, taken: with so many more draws of the same kind the verdict falls."""
    mass = 0.095
    evidence = behaviours(mass, 200)
    plan = Plan("reinforce", 0.3, 10**6)
    verdict = judge(evidence, predict(evidence, plan))
    assert verdict.call == "insufficient data" and verdict.more_draws is not None
    grown = behaviours(mass, 200 + verdict.more_draws)
    assert judge(grown, predict(grown, plan)).call != "insufficient data"


def test_at_the_threshold_no_number_of_draws_settles_it() -> None:
    evidence = behaviours(0.05)
    beta = float(recovery_threshold(0.05, 1.0))
    found = predict(evidence, Plan("reinforce", beta, 10**7))
    assert draws_to_settle(evidence, found) is None
    assert any("will not settle" in text for text in judge(evidence, found).todo)


@pytest.mark.parametrize("mass", [0.01, 0.05, 0.2])
def test_the_window_ends_at_the_recovery_threshold(mass: float) -> None:
    """With rollouts without end the gate is open, and the predicted window is theory's beta_c."""
    found = beta_window(behaviours(mass), Plan("reinforce", 0.1, 10**12))
    expected = float(recovery_threshold(mass, 1.0))
    assert found.upper.value == pytest.approx(expected, rel=0.02)  # between the points of a grid
    assert found.upper.low is not None and found.upper.high is not None
    assert found.upper.low < expected < found.upper.high


def test_a_reference_that_is_mostly_target_has_no_upper_end() -> None:
    found = beta_window(behaviours(0.7), Plan("reinforce", 0.1, 10**6))
    assert found.upper.value is None and "already" in str(found.upper.why)


def test_draws_and_rollouts_that_are_needed() -> None:
    evidence = behaviours(0.01)
    plan = Plan("grpo", 0.1, 1_000)
    found = needs(evidence, predict(evidence, plan))
    assert found.hits.value == pytest.approx(10.0)
    assert found.to_see.value == math.ceil(math.log(0.01) / math.log(0.99))
    assert found.rollouts.value is not None
    enough = predict(evidence, replace(plan, rollouts=int(found.rollouts.value)))
    less = predict(evidence, replace(plan, rollouts=int(found.rollouts.value * 0.98)))
    assert enough.mass.value is not None and less.mass.value is not None
    assert less.mass.value < 0.5 <= enough.mass.value + 1e-6
    hopeless = needs(evidence, predict(evidence, replace(plan, beta=2.0)))
    assert hopeless.rollouts.value is None and "no number of rollouts" in str(hopeless.rollouts.why)


def test_needed_hits_grow_with_beta_by_the_pull() -> None:
    gate = constants.GATES["ppo"]
    assert needed_hits(gate, 0.2, 1.0) == pytest.approx(needed_hits(gate, 0.1, 1.0) * 2**gate.pull)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ppo", 0.0), "the optimum ignores the reference"),
        (("ppo", -1.0), "beta must be > 0"),
        (("ppo", math.nan), "beta must be > 0"),
        (("pppo", 0.1), "algorithm must be a known one"),
        (("ppo", 0.1, 0), "rollouts must be at least 1"),
        (("ppo", 0.1, 10, "soft"), "labels must be"),
    ],
)
def test_bad_plans_are_refused_in_words(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan(*arguments)  # type: ignore[arg-type]


@given(st.floats(0.0, 1.0))
def test_a_share_is_read_as_what_it_is(share: float) -> None:
    text = percent(share)
    assert text.endswith("%")
    assert (text == "0 %") == (share == 0.0) and (text == "100 %") == (share == 1.0)
    if 0.01 <= share <= 0.99:
        assert float(text[:-2]) == pytest.approx(100 * share, rel=0.06)
