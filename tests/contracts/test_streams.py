"""Random streams of neighbouring seeds and purposes are independent, and chunking changes no number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from alignfirst.worlds.mog import streams

M = 20_000


@pytest.fixture(scope="module")
def uniforms():
    keys = list(itertools.product(range(4), ("p_star", "distil", "rollouts", "labels"), (0, 1)))
    return {key: streams.stream(*key).random(M) for key in keys}


def test_every_stream_is_uniform(uniforms):
    """Kolmogorov-Smirnov, Bonferroni at 1e-4 in all."""
    p = [stats.kstest(u, "uniform").pvalue for u in uniforms.values()]
    assert min(p) > 1e-4 / len(p)


def test_no_two_streams_are_correlated(uniforms):
    """Also at lags, for counter-based generators could overlap shifted."""
    rows = np.stack(list(uniforms.values())) - 0.5
    rows /= rows.std(axis=1, keepdims=True)
    pairs = len(rows) * (len(rows) - 1) / 2
    for lag in (0, 1, 2, 4, 8):
        c = rows[:, : M - lag] @ rows[:, lag:].T / (M - lag)
        off = np.abs(c[~np.eye(len(c), dtype=bool)]).max() * np.sqrt(M)
        assert off < stats.norm.isf(1e-4 / (10 * pairs))


def test_pairs_of_streams_fill_the_square(uniforms):
    """Chi-square of 8 x 8 cells for neighbouring seeds."""
    for seed in range(3):
        a, b = uniforms[seed, "rollouts", 0], uniforms[seed + 1, "rollouts", 0]
        cells = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0].ravel()
        assert stats.chisquare(cells).pvalue > 1e-5


def test_noise_of_a_seed_does_not_depend_on_its_company():
    def first(seeds, row):
        taken = itertools.islice(streams.rollout_noise(seeds, 0, 32), streams.CHUNK + 10)
        return np.stack([np.concatenate([u[row], z[row].ravel()]) for u, z in taken])

    alone, together = first([6], 0), first([5, 6, 7], 1)
    assert alone.tobytes() == together.tobytes()
    assert len(np.unique(alone[:, 0])) == len(alone)  # no chunk repeats another


def test_minibatches_use_every_pair_equally():
    picks = np.concatenate(list(itertools.islice(streams.minibatches([1], 0, 96, 36), 8)), axis=1)[0]  # 288 = 3 epochs
    assert (np.bincount(picks, minlength=96) == 3).all()
