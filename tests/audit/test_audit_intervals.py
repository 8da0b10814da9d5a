"""Intervals against scipy, against hand arithmetic, and by how often they hold in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, t

from alignfirst.auditing.share_intervals import (
    Number,
    clopper_pearson,
    clustered_mean,
    clustered_share,
    share,
    share_interval,
)

SIGMAS = 5.0


def least(level: float, runs: int) -> float:
    """What coverage of at least `level` may fall to in so many runs, by five standard errors."""
    return level - SIGMAS * math.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (17, 4096), (1, 1)])
def test_clopper_pearson_is_scipys(hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(hits, n) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_without_draws_everything_is_possible() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert share(0, 0, "rows").value is None


def test_a_weighted_share_with_the_variance_of_plain_draws_is_clopper_pearson() -> None:
    n, hits = 400, 60
    p = hits / n
    assert share_interval(p, p * (1 - p) / n, math.inf) == pytest.approx(clopper_pearson(hits, n))


def test_few_degrees_of_freedom_widen_a_weighted_share() -> None:
    wide, narrow = share_interval(0.1, 1e-4, 2), share_interval(0.1, 1e-4, math.inf)
    assert wide[0] < narrow[0] < 0.1 < narrow[1] < wide[1]


def test_an_interval_holds_its_estimate_even_when_it_is_hopelessly_uncertain() -> None:
    low, high = share_interval(1e-12, 1e-3, 0.3)
    assert 0 <= low <= 1e-12 <= high <= 1


def test_a_number_without_an_interval_must_say_why() -> None:
    with pytest.raises(ValueError, match="why"):
        Number(0.5)
    assert Number(math.nan, why="no draws").value is None
    assert Number(1.0, 0.5, math.inf, "open").plain() == {"value": 1.0, "low": 0.5, "high": None, "why": "open"}


def test_a_share_of_independent_rows_is_exact_and_of_clusters_is_wider() -> None:
    hit = np.array([1.0] * 30 + [0.0] * 30)
    apart = clustered_share(hit, np.arange(60), "rows")
    assert (apart.low, apart.high) == pytest.approx(clopper_pearson(30, 60))
    together = clustered_share(hit, np.repeat(np.arange(12), 5), "rows")
    assert together.low is not None and apart.low is not None and together.low < apart.low
    assert clustered_share(hit, np.repeat(np.arange(4), 15), "rows").why == (
        "4 prompts are too few for an interval over prompts"
    )


def test_a_clustered_mean_of_single_rows_is_the_t_interval() -> None:
    x = np.random.default_rng(0).normal(3, 2, 50)
    found = clustered_mean(x, np.arange(50), "rows")
    half = t.ppf(0.975, 49) * x.std(ddof=1) / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half))


def test_equal_values_have_no_interval() -> None:
    assert clustered_mean(np.full(20, 0.3), np.arange(20), "rows").why == "all values are the same"


def test_intervals_over_prompts_hold_as_often_as_they_say() -> None:
    """Rows of a prompt share its own level: an interval over rows would be far too narrow."""
    random, runs, prompts, each = np.random.default_rng(1), 2_000, 30, 8
    cluster = np.repeat(np.arange(prompts), each)
    covered = {"share": 0, "mean": 0}
    for _ in range(runs):
        level = random.beta(2, 3, prompts)
        hit = (random.random(len(cluster)) < level[cluster]).astype(float)
        value = random.normal(0, 1, prompts)[cluster] + random.normal(0, 1, len(cluster))
        for name, found, truth in (
            ("share", clustered_share(hit, cluster, "rows"), 0.4),
            ("mean", clustered_mean(value, cluster, "rows"), 0.0),
        ):
            assert found.low is not None and found.high is not None
            covered[name] += found.low <= truth <= found.high
    assert min(covered.values()) / runs >= least(0.95, runs)
