"""n-grams of texts against hand counts and a brute force."""

from __future__ import annotations

import numpy as np
import pytest

from alignfirst.theory.diversity import distinct, repetition


def test_distinct_and_repeated_n_grams_by_hand() -> None:
    x = np.array([[1, 2, 1, 2, 3], [1, 2, 3, 4, 5]])
    assert distinct(x, 1) == 5 / 10
    assert distinct(x, 2) == 5 / 8  # 12 21 23 | 34 45
    assert repetition(x, 2) == pytest.approx((1 / 4 + 0) / 2)  # 12 comes again in the first
    assert repetition(np.full((3, 5), 7), 2) == pytest.approx(3 / 4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_texts_of_different_lengths_as_one_by_one(n: int) -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.integers(0, 4, (50, 9)), rng.integers(0, 10, 50)
    own = [[tuple(row[i : i + n]) for i in range(k - n + 1)] for row, k in zip(x.tolist(), lengths, strict=True)]
    every = [gram for grams in own for gram in grams]
    assert distinct(x, n, lengths) == pytest.approx(len(set(every)) / len(every))
    assert repetition(x, n, lengths) == pytest.approx(np.mean([1 - len(set(g)) / len(g) for g in own if g]))


def test_no_n_gram_at_all() -> None:
    x, none = np.ones((2, 3), int), np.zeros(2, int)
    assert distinct(x, 2, none) == 0 and repetition(x, 2, none) == 0
