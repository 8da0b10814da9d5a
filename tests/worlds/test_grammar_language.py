"""The grammar's exact probabilities against enumeration of every sequence, and its samples against both."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from alignfirst.worlds.grammar import streams
from alignfirst.worlds.grammar.language import Chain, Language, language

SMALL: dict[str, Any] = {
    "behaviours": 3,
    "words": 4,
    "own": 2,
    "successors": 2,
    "smoothing": 0.1,
    "length": 4,
    "zipf": 1.0,
    "language": 7,
    "target_weights": [0.2, 0.6],
}
FULL: dict[str, Any] = {
    "behaviours": 6,
    "words": 48,
    "own": 16,
    "successors": 4,
    "smoothing": 0.02,
    "length": 16,
    "zipf": 1.0,
    "language": 0,
    "target_weights": [0.05],
}


def every_sequence(of: Language) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(list(product(range(of.vocabulary), repeat=of.length)))


def by_hand(of: Language, k: int, sequence: Any) -> float:
    """Probability of one sequence under one behaviour, one factor at a time."""
    p = float(np.exp(of.chains.log_initial[k, sequence[0]]))
    for a, b in pairwise(sequence):
        p *= float(np.exp(of.chains.log_transition[k, a, b]))
    return p


@pytest.fixture(scope="module")
def small() -> Language:
    return language(SMALL)


@pytest.fixture(scope="module")
def full() -> Language:
    return language(FULL)


def test_every_distribution_sums_to_one_over_all_sequences(small: Language) -> None:
    x = every_sequence(small)
    assert len(x) == 6**4
    for prompt in range(2):
        prompts = np.full(len(x), prompt)
        assert np.exp(small.logp_star(x, prompts)).sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(small.logp_target(x)).sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(small.chains.logp(x)).sum(0) == pytest.approx(np.ones(3), abs=1e-12)


def test_logs_and_posterior_are_those_of_hand_arithmetic(small: Language) -> None:
    x = every_sequence(small)[::97]
    for prompt, weights in enumerate(([0.8 * 2 / 3, 0.8 / 3, 0.2], [0.4 / 3, 0.4 * 2 / 3, 0.6])):
        assert np.exp(small.log_weights[prompt]) == pytest.approx(weights)
        joint = np.array([[w * by_hand(small, k, s) for k, w in enumerate(weights)] for s in x])
        prompts = np.full(len(x), prompt)
        assert np.exp(small.logp_star(x, prompts)) == pytest.approx(joint.sum(1), rel=1e-12)
        assert small.posterior(x, prompts) == pytest.approx(joint / joint.sum(1, keepdims=True), rel=1e-10)
        assert np.exp(small.logp_target(x)) == pytest.approx([by_hand(small, 2, s) for s in x], rel=1e-12)


def test_prefixes_are_marginals(small: Language) -> None:
    """log p of a prefix is the log of the summed probabilities of all sequences that begin with it."""
    x = every_sequence(small)
    p = np.exp(small.chains.logp(x))  # [N, K]
    forward = small.chains.forward(x[::61])
    for row, sequence in zip(forward, x[::61], strict=True):
        for t in range(small.length):
            begins = (x[:, : t + 1] == sequence[: t + 1]).all(1)
            assert np.exp(row[t]) == pytest.approx(p[begins].sum(0), rel=1e-10)


def test_expected_log_likelihood_is_that_of_enumeration(small: Language) -> None:
    x = every_sequence(small)
    hot = small.chains.only(small.target).at_temperature(0.8)
    p = np.exp(small.chains.logp(x))
    assert small.chains.mean_of(hot, small.length) == pytest.approx(p.T @ hot.logp(x)[:, 0], rel=1e-12)


def test_temperature_sharpens_every_next_token() -> None:
    chain = Chain(np.log([[0.5, 0.3, 0.2]]), np.log([[[0.5, 0.3, 0.2]] * 3]))
    expected = np.array([0.25, 0.09, 0.04]) / 0.38
    assert np.exp(chain.at_temperature(0.5).log_transition[0, 1]) == pytest.approx(expected)


def test_samples_have_the_exact_frequencies(small: Language) -> None:
    """Chi-squared over all sequences with an expected count of 5 or more, the rest in one cell."""
    n, x = 40_000, every_sequence(small)
    for prompt in range(2):
        drawn = small.sample(np.full(n, prompt), streams.generator(3, "held-out"))
        code = small.vocabulary ** np.arange(small.length)
        counts = np.bincount(drawn @ code, minlength=len(x))[x @ code]
        expected = n * np.exp(small.logp_star(x, np.full(len(x), prompt)))
        often = expected >= 5
        cells = np.append((counts[often] - expected[often]) ** 2 / expected[often], 0.0)
        cells[-1] = (counts[~often].sum() - expected[~often].sum()) ** 2 / expected[~often].sum()
        freedom = len(cells) - 1
        assert cells.sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_prompts_are_drawn_apart(small: Language) -> None:
    """Mixed prompts in one call: the target's posterior has the prompt's own weight as its mean."""
    prompts = small.balanced(20_000)
    x = small.sample(prompts, streams.generator(5, "held-out"))
    mass = small.posterior(x, prompts)[:, small.target]
    for prompt, weight in enumerate((0.2, 0.6)):
        own = mass[prompts == prompt]
        assert abs(own.mean() - weight) < 5 * own.std() / np.sqrt(len(own))


def test_the_default_language_is_the_one_of_the_glossary(full: Language) -> None:
    assert (full.behaviours, full.vocabulary, full.length, full.prompts) == (6, 49, 16, 1)
    weights = np.exp(full.log_weights[0])
    assert weights[-1] == pytest.approx(0.05) and weights.sum() == pytest.approx(1)
    assert weights[:-1] * np.arange(1, 6) == pytest.approx(np.full(5, weights[0]))  # Zipf
    target_words = np.arange(32, 48)
    step = np.exp(full.chains.log_transition)
    for k in range(6):
        own = np.flatnonzero(np.exp(full.chains.log_initial[k]) > 0.01)
        assert len(own) == 16
        assert set(own) == set(target_words) if k == full.target else not set(own) & set(target_words)
        assert ((step[k, own] > 0.01).sum(-1) == 4).all()
        assert np.sort(step[k, own], axis=-1)[:, -4:] == pytest.approx(
            np.tile(0.98 * np.array([0.1, 0.2, 0.3, 0.4]) + 0.02 / 49, (16, 1))
        )
    assert step.min() == pytest.approx(0.02 / 49)


def test_behaviours_are_told_apart_by_their_text(full: Language) -> None:
    rng = streams.generator(11, "held-out")
    x = full.sample_target(2000, rng)
    assert full.posterior(x, full.balanced(2000))[:, full.target].mean() > 0.999


def test_a_language_is_its_settings_and_nothing_else() -> None:
    assert np.array_equal(language(dict(FULL)).chains.log_transition, language(FULL).chains.log_transition)
    other = language(FULL | {"language": 1})
    assert not np.array_equal(other.chains.log_transition, language(FULL).chains.log_transition)
    rarer = language(FULL | {"target_weights": [0.01]})
    assert np.array_equal(rarer.chains.log_transition, language(FULL).chains.log_transition)


def test_tokens_have_readable_distinct_names(full: Language) -> None:
    words = full.vocabulary_words
    assert len(set(words)) == len(words) == full.vocabulary
    assert full.text(np.array([0, 47, 48])) == "anvil orchid <1>"
    large = language(FULL | {"words": 100, "own": 40})
    assert len(set(large.vocabulary_words)) == large.vocabulary


def test_purposes_and_seeds_share_no_numbers() -> None:
    drawn = [
        streams.generator(seed, purpose, occurrence).random(4).tolist()
        for seed in (0, 1)
        for purpose in ("align", "distil")
        for occurrence in (0, 1)
    ]
    assert len({tuple(d) for d in drawn}) == 8
    assert 0 <= streams.number(0, "align") < 2**63
    assert streams.number(0, "align") != streams.number(0, "align", 1)
