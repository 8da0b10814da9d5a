"""Distillation divergences against loops, whole-sequence enumeration, and inequalities that must hold for any input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from alignfirst.errors import InputError
from alignfirst.theory import divergences as dv

logits = st.integers(2, 8).flatmap(
    lambda v: st.tuples(*(st.lists(st.floats(-20, 20), min_size=v, max_size=v) for _ in range(2)))
)


def test_by_hand() -> None:
    teacher, student = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    assert dv.forward_kl(teacher, student) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert dv.reverse_kl(teacher, student) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


@given(pair=logits)
def test_against_loops_and_never_negative(pair: tuple[list[float], list[float]]) -> None:
    teacher, student = (log_softmax(np.array(x)) for x in pair)
    loop = sum(math.exp(t) * (t - s) for t, s in zip(teacher, student, strict=True))
    assert dv.forward_kl(teacher, student) == pytest.approx(loop, abs=1e-12)
    assert dv.reverse_kl(student, teacher) == dv.forward_kl(teacher, student)
    assert dv.forward_kl(teacher, student) >= -1e-12
    assert dv.forward_kl(teacher, teacher) == 0.0


@given(pair=logits)
def test_top_k_with_tail_bounds_the_full_kl_from_below(pair: tuple[list[float], list[float]]) -> None:
    teacher, student = (log_softmax(np.array(x)) for x in pair)
    v, full = teacher.size, float(dv.forward_kl(teacher, student))
    kept = [float(dv.topk_forward_kl(teacher, student, k)) for k in range(1, v + 1)]
    assert all(-1e-12 <= a <= b + 1e-12 for a, b in itertools.pairwise([*kept, full]))  # finer partitions tell more
    assert kept[-2:] == pytest.approx([full, full], abs=1e-10)


def test_the_bound_is_strict_and_needs_the_tail() -> None:
    teacher, student = np.log([0.4, 0.3, 0.2, 0.1]), np.log([0.4, 0.3, 0.1, 0.2])
    full = 0.2 * math.log(2) - 0.1 * math.log(2)
    assert dv.forward_kl(teacher, student) == pytest.approx(full)
    assert dv.topk_forward_kl(teacher, student, 2) == pytest.approx(0.0, abs=1e-15)  # equal heads, equal tail mass
    np.testing.assert_allclose(dv.topk_forward_kl(teacher, student, 3, tail=False), 0.2 * math.log(2))  # above the full
    flat = np.log([0.6, 0.4]), np.log([0.9, 0.1])
    assert dv.topk_forward_kl(*flat, 1, tail=False) < 0


def test_top_k_follows_the_teacher_in_every_row() -> None:
    teacher, student = np.log([[0.1, 0.9], [0.7, 0.3]]), np.log([[0.5, 0.5], [0.5, 0.5]])
    got = dv.topk_forward_kl(teacher, student, 1, tail=False)
    np.testing.assert_allclose(got, [0.9 * math.log(1.8), 0.7 * math.log(1.4)])


@pytest.mark.parametrize("k", [0, 3, -1])
def test_bad_k_is_refused(k: int) -> None:
    with pytest.raises(InputError, match="k must lie in"):
        dv.topk_forward_kl(np.log([0.5, 0.5]), np.log([0.5, 0.5]), k)


def test_zero_probability() -> None:
    with np.errstate(divide="ignore"):
        one, both = np.log([1.0, 0.0]), np.log([0.5, 0.5])
    assert dv.forward_kl(one, both) == pytest.approx(math.log(2))
    assert dv.forward_kl(both, one) == np.inf
    assert dv.forward_kl(one, one) == 0.0
    assert dv.topk_forward_kl(one, both, 1) == pytest.approx(math.log(2))


@given(pair=logits, s=st.floats(0.1, 5.0))
def test_sharpening(pair: tuple[list[float], list[float]], s: float) -> None:
    logp = log_softmax(np.array(pair[0]))
    sharp = dv.sharpen(logp, s)
    powers = np.exp(s * (logp - logp.max()))
    np.testing.assert_allclose(np.exp(sharp), powers / powers.sum(), atol=1e-12)
    np.testing.assert_allclose(dv.sharpen(pair[0], s), sharp, atol=1e-10)  # logits do as well
    np.testing.assert_allclose(dv.sharpen(logp, 1.0), logp, atol=1e-12)


def test_bad_selectivity_is_refused() -> None:
    with pytest.raises(InputError, match="selectivity"):
        dv.sharpen([0.0, 0.0], 0.0)


class TestWholeSequences:
    """Three tokens, two steps: a first-step table [V] and a second-step table [V, V], all nine sequences enumerated."""

    def setup_method(self) -> None:
        rng = np.random.default_rng(0)
        self.first = log_softmax(rng.normal(size=(2, 3)), axis=-1)  # teacher, student
        self.second = log_softmax(rng.normal(size=(2, 3, 3)), axis=-1)
        self.sequences = np.array(list(itertools.product(range(3), repeat=2)))  # [9, 2]
        first_step = np.broadcast_to(self.first[:, None], (2, 9, 3))
        self.tables = np.stack([first_step, self.second[:, self.sequences[:, 0]]], axis=2)  # [2, 9, L, V]
        self.tokens = dv.token_logp(self.tables, np.broadcast_to(self.sequences, (2, 9, 2)))  # [2, 9, L]
        self.whole = np.array([[self.first[m, a] + self.second[m, a, b] for a, b in self.sequences] for m in (0, 1)])

    def test_token_logp_gathers(self) -> None:
        np.testing.assert_allclose(dv.per_sequence(self.tokens), self.whole)

    def test_reverse_kl_three_ways(self) -> None:
        teacher, student = self.whole
        brute = float((np.exp(student) * (student - teacher)).sum())
        sampled = dv.reverse_kl_of_samples(self.tokens[1], self.tokens[0])
        assert np.exp(student) @ sampled == pytest.approx(brute)
        per_token = dv.reverse_kl(self.tables[0], self.tables[1])  # [9, L] at each sequence's prefixes
        assert np.exp(student) @ dv.per_sequence(per_token) == pytest.approx(brute)

    def test_forward_kl_and_nll(self) -> None:
        teacher, student = self.whole
        brute = float((np.exp(teacher) * (teacher - student)).sum())
        per_token = dv.forward_kl(self.tables[0], self.tables[1])
        assert np.exp(teacher) @ dv.per_sequence(per_token) == pytest.approx(brute)
        entropy = -float(np.exp(teacher) @ teacher)
        assert np.exp(teacher) @ dv.sequence_nll(self.tokens[1]) == pytest.approx(brute + entropy)

    def test_padding_is_left_out(self) -> None:
        padded = np.concatenate([self.tokens, np.full((2, 9, 1), np.nan)], axis=-1)
        mask = np.array([True, True, False])
        np.testing.assert_allclose(dv.sequence_nll(padded[1], mask), -self.whole[1])
        np.testing.assert_allclose(dv.reverse_kl_of_samples(padded[1], padded[0], mask), self.whole[1] - self.whole[0])
