from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignfirst.stats import CLAIMS, METRICS, Claim, claims
from alignfirst.stats.claims import TESTS, judge
from alignfirst.stats.intervals import holm

Row = dict[str, Any]
BY_ID = pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)


def planted(claim: Claim, effect: float, seed: int = 0) -> Any:
    """Rows in which align-distil has `effect` more (difference), or exp(effect) times the spread, of the metric."""
    rng = np.random.default_rng(seed)

    def values(row: Row) -> Row:
        first = row["recipe"] == "align-distil"
        noise = float(rng.normal(0, 0.1))
        value = noise * np.exp(effect * first) if claim.scale == "ratio" else noise + effect * first
        return {"target_mass": 0.9, claim.metric: value}

    return values


def of(claim: Claim | str, found: list[Row]) -> list[Row]:
    return [f for f in found if f["claim"] == (claim if isinstance(claim, str) else claim.id)]


def of_scale(scale: str) -> Claim:
    return next(c for c in CLAIMS if c.scale == scale)


def test_claims_are_well_formed_data() -> None:
    assert len({c.id for c in CLAIMS}) == len(CLAIMS) > 0
    for c in CLAIMS:
        assert c.metric in METRICS and c.scale in TESTS and c.small > 0 and c.statement


@BY_ID
@pytest.mark.parametrize(("size", "verdict"), [(1, "holds"), (-1, "reversed"), (0, "undecided")])
def test_a_planted_effect_is_judged_as_planted(study: Any, claim: Claim, size: int, verdict: str) -> None:
    (found,) = of(claim, claims(study(planted(claim, 2.0 * size * claim.direction), seeds=range(20))))
    assert found["verdict"] == verdict
    assert found["n"] == 20
    assert found["low"] < found["estimate"] < found["high"]
    no_effect = 1 if claim.scale == "ratio" else 0
    assert (found["low"] <= no_effect <= found["high"]) == (verdict == "undecided")
    assert found["note"] is None


@BY_ID
def test_without_an_effect_few_tests_are_fooled(study: Any, claim: Claim) -> None:
    """Raw p-values are uniform over 800 settings, and Holm lets none through (but 5 times in 100 studies)."""
    rows = study(planted(claim, 0.0, seed=1), seeds=range(8), betas=[0.01 * (i + 1) for i in range(800)])
    found = of(claim, claims(rows))
    fooled = sum(f["p"] < 0.05 for f in found)
    assert abs(fooled / 800 - 0.05) <= 5 * (0.05 * 0.95 / 800) ** 0.5
    assert {f["verdict"] for f in found} == {"insufficient" if claim.scale == "ratio" else "undecided"}


def test_holm_runs_within_a_claim_over_the_whole_study(study: Any) -> None:
    claim = CLAIMS[0]
    varied = [{"align.updates": u} for u in (150, 600)]
    rng = np.random.default_rng(2)

    def values(row: Row) -> Row:
        if row["beta"] == 0.3 and row["recipe"] == "align-distil" and row["seed"] > 3:
            return {"status": "failed"}  # too few pairs: not tested, so not in the family
        return {"reward": float(rng.normal() + 0.8 * (row["recipe"] == "align-distil"))}

    rows = study(values, seeds=range(8), varied=varied, betas=(0.1, 0.2, 0.3, None), algorithms=("rloo", "ppo"))
    found = of(claim, claims(rows, ("align.updates",)))
    assert len(found) == 16
    assert {f["family"] for f in found} == {12}
    tested = [f for f in found if f["p"] is not None]
    assert [f["p_holm"] for f in tested] == pytest.approx(holm([f["p"] for f in tested]).tolist())
    for f in found:
        assert (f["verdict"] == "insufficient") == (f["beta"] == 0.3) == (f["p"] is None)
        if f["p"] is not None:
            clear = f["p_holm"] < 0.05
            assert f["verdict"] == (("holds" if f["estimate"] > 0 else "reversed") if clear else "undecided")


def test_a_p_value_that_holm_does_not_let_through_is_undecided(study: Any) -> None:
    rows = study(planted(CLAIMS[0], 0.12, seed=5), seeds=range(8), betas=[0.01 * (i + 1) for i in range(30)])
    found = of(CLAIMS[0], claims(rows))
    caught = [f for f in found if f["p"] < 0.05 <= f["p_holm"]]
    assert caught and all(f["verdict"] == "undecided" for f in caught)


def test_the_verdict_rule() -> None:
    assert judge(4, 1.0, 0.0) == "insufficient"
    assert judge(5, 1.0, 0.049) == "holds"
    assert judge(5, -1.0, 0.049) == "reversed"
    assert judge(5, 1.0, 0.05) == "undecided"
    assert judge(5, 1.0, float("nan")) == "undecided"
    assert judge(5, 0.0, 0.0) == "undecided"


# --- the cases in which a table of p-values would mislead


def test_orders_that_end_the_same_are_undecided_and_say_so(study: Any) -> None:
    found = claims(study(lambda row: dict.fromkeys(METRICS, 0.1 + 0.01 * row["seed"]), seeds=range(20)))
    for f in found:
        assert f["verdict"] == "undecided" and f["p"] == 1
        assert f["estimate"] == (1 if f["scale"] == "ratio" else 0)
        assert f["note"] == (
            "both recipes vary in exactly the same way over seeds"
            if f["scale"] == "ratio"
            else "no difference in any seed"
        )


@pytest.mark.parametrize(("n", "verdict"), [(5, "undecided"), (20, "holds")])
def test_a_constant_difference_is_tested_by_its_sign(study: Any, n: int, verdict: str) -> None:
    rows = study(lambda row: {"reward": 0.01 * row["seed"] + (row["recipe"] == "align-distil")}, seeds=range(n))
    (f,) = of("higher-reward", claims(rows))
    assert f["verdict"] == verdict
    assert f["p"] == 2 * 0.5**n
    assert f["low"] is f["high"] is None
    assert "t is undefined" in f["note"] and "sign test" in f["note"]


@pytest.mark.parametrize("flat", [("align-distil",), ("distil-align",), ("align-distil", "distil-align")])
def test_no_spread_at_all_is_not_a_victory(study: Any, flat: tuple[str, ...]) -> None:
    rows = study(lambda row: {"reward": 0.3 if row["recipe"] in flat else 0.1 * row["seed"]}, seeds=range(20))
    (f,) = of("lower-spread-over-seeds", claims(rows))
    assert f["verdict"] == "undecided" and f["p"] is None and f["low"] is None
    assert f["estimate"] == (0 if flat == ("align-distil",) else None)
    assert f"no spread at all over seeds in {' and '.join(flat)}" in f["note"]


def test_perfect_correlation_is_said(study: Any) -> None:
    rows = study(lambda row: {"reward": row["seed"] * (1.0 + (row["recipe"] == "align-distil"))}, seeds=range(8))
    (f,) = of("lower-spread-over-seeds", claims(rows))
    assert f["verdict"] == "undecided" and f["estimate"] == pytest.approx(2)
    assert "perfectly correlated" in f["note"]


@pytest.mark.parametrize("id", ["lower-spread-over-seeds", "lower-spread-over-samples"])
@pytest.mark.parametrize("mass", [0.001, 0.9])
def test_steady_failure_is_not_mistaken_for_merit(study: Any, id: str, mass: float) -> None:
    """Deep in the trap distil-align hardly varies: the claim is reversed, and the reader is told why."""
    rng = np.random.default_rng(3)

    def values(row: Row) -> Row:
        if row["recipe"] == "align-distil":
            return {"reward": rng.normal(0.8, 0.1), "reward_sd": rng.normal(0.3, 0.01), "target_mass": 0.9}
        return {"reward": rng.normal(0.01, 0.001), "reward_sd": rng.normal(0.02, 0.01), "target_mass": mass}

    (f,) = of(id, claims(study(values, seeds=range(20))))
    assert f["verdict"] == "reversed"
    told = "distil-align varies less, but ends with target mass at or below 1/2 in all 20 seeds"
    assert (told in (f["note"] or "")) == (mass < 0.5)


def test_a_claim_that_holds_by_failure_is_told_too(study: Any) -> None:
    rng = np.random.default_rng(4)

    def values(row: Row) -> Row:
        first = row["recipe"] == "align-distil"
        return {"reward_sd": rng.normal(0.1 if first else 0.4, 0.01), "target_mass": 0.1 if first else 0.9}

    (f,) = of("lower-spread-over-samples", claims(study(values, seeds=range(20))))
    assert f["verdict"] == "holds" and "align-distil varies less, but ends" in f["note"]


def test_spread_that_rests_on_one_seed_is_not_decided(study: Any) -> None:
    rng = np.random.default_rng(12)

    def values(row: Row) -> Row:
        outlier = row["recipe"] == "distil-align" and row["seed"] == 7
        return {"reward": 0.02 if outlier else rng.normal(0.9, 0.01), "target_mass": 0.9}

    (f,) = of("lower-spread-over-seeds", claims(study(values, seeds=range(20))))
    assert f["p"] < 1e-6 and f["p_holm"] == f["p_swap"] > 0.05
    assert f["verdict"] == "undecided" and "finds no clear difference" in f["note"]


@pytest.mark.parametrize(
    ("settings", "seeds", "verdict"),
    [(1, 6, "insufficient"), (1, 7, "holds"), (2, 7, "insufficient"), (2, 8, "holds"), (51, 11, "insufficient")],
)
def test_too_few_seeds_for_the_family_are_said(study: Any, settings: int, seeds: int, verdict: str) -> None:
    """In every setting one recipe hardly varies: with seeds enough all are decided, with one fewer none can be."""
    rng = np.random.default_rng(13)

    def values(row: Row) -> Row:
        return {"reward": rng.normal(0, 1e-6 if row["recipe"] == "align-distil" else 1)}

    rows = study(values, seeds=range(seeds), betas=[0.01 * (i + 1) for i in range(settings)])
    found = of("lower-spread-over-seeds", claims(rows))
    assert {f["verdict"] for f in found} == {verdict}
    needed = {1: 7, 2: 8, 51: 12}[settings]
    assert all((f"needs {needed} seeds" in (f["note"] or "")) == (verdict == "insufficient") for f in found)


def test_holm_corrects_the_p_that_decides_on_spread(study: Any) -> None:
    rows = study(planted(of_scale("ratio"), -1.5, seed=7), seeds=range(20), betas=[0.01 * (i + 1) for i in range(12)])
    found = of("lower-spread-over-seeds", claims(rows))
    assert [f["p_holm"] for f in found] == pytest.approx(holm([f["p_swap"] for f in found]).tolist())
    assert {f["verdict"] for f in found} <= {"holds", "undecided"}
    assert all((f["verdict"] == "holds") == (f["p_holm"] < 0.05) for f in found)
    assert sum(f["verdict"] == "holds" for f in found) >= 6


def test_a_tiny_effect_is_called_tiny_but_keeps_its_verdict(study: Any) -> None:
    rng = np.random.default_rng(6)
    tiny = study(
        lambda row: {"reward": 0.5 + 0.004 * (row["recipe"] == "align-distil") + rng.normal(0, 1e-4)}, seeds=range(20)
    )
    (f,) = of("higher-reward", claims(tiny))
    assert f["verdict"] == "holds"
    assert f["note"] == "statistically clear, but smaller than 0.01"
    assert f["p_swap"] is None
