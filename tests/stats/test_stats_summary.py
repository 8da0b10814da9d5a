from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from alignfirst.errors import InputError
from alignfirst.stats import CLAIMS, METRICS, audited, cells, claims, pairs, recipes, summarise, windows
from alignfirst.stats.cells import MEANS

Row = dict[str, Any]
ANY = (*METRICS, *MEANS)


def noisy(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return lambda row: dict(zip(ANY, rng.normal(size=len(ANY)).tolist(), strict=True))


def damage(rows: list[Row], seed: int) -> list[Row]:
    """Some rows failed, some are missing, some values are null."""
    rng = np.random.default_rng(seed)
    kept = []
    for row in rows:
        fate = rng.uniform()
        if fate < 0.1:
            continue
        if fate < 0.2:
            row = row | dict.fromkeys(ANY) | {"status": "failed", "error": "diverged"}
        elif fate < 0.3:
            row = row | {METRICS[rng.integers(len(METRICS))]: None}
        kept.append(row)
    return kept


def one(found: list[Row], **want: Any) -> Row:
    (hit,) = [f for f in found if all(f[k] == v for k, v in want.items())]
    return hit


# --- cells


def test_cells_agree_with_brute_force(study: Any) -> None:
    rows = damage(study(noisy(1), seeds=range(9), betas=(0.1, 0.3), algorithms=("rloo", "grpo")), 2)
    found = cells(rows)
    names = ("recipe", "algorithm", "beta", "stage", "stage_index", "final")
    assert len(found) == len({tuple(r[n] for n in names) for r in rows})
    for cell in found:
        mine = sorted((r for r in rows if all(r[n] == cell[n] for n in names)), key=lambda r: r["seed"])
        good = [r for r in mine if r["status"] == "ok"]
        assert cell["seeds"] == [r["seed"] for r in good]
        assert cell["failed_seeds"] == [r["seed"] for r in mine if r["status"] == "failed"]
        assert (cell["n"], cell["failed"]) == (len(good), len(mine) - len(good))
        for m in METRICS:
            assert cell[m]["values"] == [r[m] for r in good]
            known = [r[m] for r in good if r[m] is not None]
            assert cell[m]["n"] == len(known)
            assert cell[m]["mean"] == pytest.approx(np.mean(known))
            assert cell[m]["iqm"] == pytest.approx(reference.trim_mean(known, 0.25))
            if len(known) >= 5:
                interval = reference.ttest_1samp(known, 0).confidence_interval(0.95)
                assert (cell[m]["low"], cell[m]["high"]) == pytest.approx(tuple(interval))
            else:
                assert cell[m]["low"] is cell[m]["high"] is None
        assert cell["exact_reward"] == pytest.approx(np.mean([r["exact_reward"] for r in good]))


def test_a_cell_of_failures_only_is_shown_empty(study: Any) -> None:
    rows = study(lambda row: {"status": "blocked" if row["final"] else "failed"}, seeds=range(3))
    for cell in cells(rows):
        assert (cell["n"], cell["failed"], cell["seeds"], cell["failed_seeds"]) == (0, 3, [], [0, 1, 2])
        assert cell["reward"]["mean"] is None and cell["reward"]["values"] == []
        assert cell["beta_c"] is None


def test_varied_values_may_be_lists_and_keep_their_form(study: Any) -> None:
    targets = [{"p_star.targets": [[1, 1]]}, {"p_star.targets": [[1, 1], [-1, -1]]}]
    found = cells(study(noisy(3), varied=targets, seeds=range(2)), ("p_star.targets",))
    assert len(found) == 12
    assert [c["p_star.targets"] for c in found[::6]] == [t["p_star.targets"] for t in targets]


def test_a_seed_that_stands_twice_is_refused(study: Any) -> None:
    rows = study(noisy(4))
    with pytest.raises(InputError, match="one row a seed"):
        cells([*rows, rows[3]])
    two = study(noisy(4), varied=[{"distil.components": 2}, {"distil.components": 4}])
    with pytest.raises(InputError, match="Name every key that the study varies"):
        pairs(two, ())
    assert len(pairs(two, ("distil.components",))) == 2 * len(METRICS)


# --- pairs


def test_pairs_agree_with_brute_force(study: Any) -> None:
    rows = damage(study(noisy(5), seeds=range(12), betas=(0.1, 0.3, None)), 6)
    found = pairs(rows)
    assert len(found) == 3 * len(METRICS)
    for pair in found:
        side = {
            recipe: {
                r["seed"]: r[pair["metric"]]
                for r in rows
                if r["recipe"] == recipe and r["final"] and r["beta"] == pair["beta"]
            }
            for recipe in ("align-distil", "distil-align")
        }
        a, b = side.values()
        common = sorted(s for s in a.keys() & b.keys() if a[s] is not None and b[s] is not None)
        d = [a[s] - b[s] for s in common]
        assert pair["seeds"] == common
        assert pair["differences"] == d
        assert (pair["n"], pair["lost"]) == (len(d), len(a.keys() | b.keys()) - len(d))
        assert pair["mean"] == pytest.approx(np.mean(d))
        assert pair["sd"] == pytest.approx(np.std(d, ddof=1))
        wins = [v < 0 if pair["metric"] == "reward_sd" else v > 0 for v in d]
        assert pair["share_won"] == np.mean(wins)
        interval = reference.ttest_1samp(d, 0).confidence_interval(0.95)
        assert (pair["low"], pair["high"]) == pytest.approx(tuple(interval))
        assert (f"{pair['lost']} of {pair['n'] + pair['lost']} seeds make no pair" in (pair["note"] or "")) == (
            pair["lost"] > 0
        )


@pytest.mark.parametrize(("n", "said"), [(0, "0 paired seeds"), (1, "1 paired seed:"), (4, "4 paired seeds")])
def test_too_few_pairs_are_counted_but_not_judged(study: Any, n: int, said: str) -> None:
    def values(row: Row) -> Row:
        failed = row["recipe"] == "distil-align" and row["seed"] >= n
        return {"status": "failed"} if failed else {"reward": float(row["seed"] + (row["recipe"] == "align-distil"))}

    rows = study(values)
    pair = one(pairs(rows), metric="reward")
    assert (pair["n"], pair["lost"], pair["seeds"]) == (n, 6 - n, list(range(n)))
    assert pair["low"] is pair["high"] is None
    assert pair["mean"] == (1 if n else None)
    assert pair["share_won"] == (1 if n else None)
    assert said in pair["note"] and "no interval is given below 5" in pair["note"]
    claim = one(claims(rows), claim="higher-reward")
    assert claim["verdict"] == "insufficient"
    assert claim["p"] is claim["p_holm"] is claim["low"] is None
    assert claim["family"] == 0


def test_seeds_are_paired_by_their_numbers_where_the_recipes_have_others(study: Any) -> None:
    def values(row: Row) -> Row:
        return {"reward": row["seed"] ** 2 if row["recipe"] == "align-distil" else row["seed"]}

    left = study(values, seeds=(1, 2, 3, 5, 8, 13, 21), recipes=("align-distil",))
    right = study(values, seeds=(2, 3, 4, 8, 9, 13, 21, 34), recipes=("distil-align",))
    pair = one(pairs(left + right), metric="reward")
    assert pair["seeds"] == [2, 3, 8, 13, 21] and (pair["n"], pair["lost"]) == (5, 5)
    assert pair["differences"] == [s * s - s for s in (2, 3, 8, 13, 21)]
    assert pair["note"] == "5 of 10 seeds make no pair (not run, failed or null in one of the recipes)"


def test_a_setting_that_only_one_recipe_has_is_said_to_be_lost(study: Any) -> None:
    rows = [r for r in study(noisy(7), betas=(0.1, 0.3)) if r["beta"] == 0.1 or r["recipe"] == "align-distil"]
    lonely = one(pairs(rows), metric="reward", beta=0.3)
    assert (lonely["n"], lonely["lost"]) == (0, 6)
    assert one(pairs(rows), metric="reward", beta=0.1)["lost"] == 0


def test_one_recipe_alone_has_nothing_to_compare(study: Any) -> None:
    for rows in ([], study(noisy(8), recipes=("align-distil",)), study(noisy(8), recipes=("align-only",))):
        found = summarise(rows)
        assert found["pairs"] == found["recipes"] == found["claims"] == found["windows"] == []
        assert bool(found["cells"]) == bool(rows)


def test_ties_are_not_wins(study: Any) -> None:
    rows = study(lambda row: {"reward": 1.0 + (row["recipe"] == "align-distil" and row["seed"] == 0)})
    pair = one(pairs(rows), metric="reward")
    assert (pair["share_won"], pair["ties"]) == (1 / 6, 5)


def test_recipes_compares_every_recipe_of_two_stages_with_distil_align(study: Any) -> None:
    rank = {"distil-align": 0, "align-distil": 1, "distil-align-anchored": 2, "align-distil-align": 3, "align-only": 9}

    def values(row: Row) -> Row:
        return {"reward": rank[row["recipe"]] + 0.01 * row["seed"] ** (rank[row["recipe"]] % 3)}

    found = [r for r in recipes(study(values, recipes=rank)) if r["metric"] == "reward"]
    assert [r["recipe"] for r in found] == ["align-distil", "distil-align-anchored", "align-distil-align"]
    for r in found:
        assert r["n"] == 6 and r["mean"] == pytest.approx(rank[r["recipe"]], abs=0.25)
    both = recipes(study(values, recipes=("align-distil", "distil-align")))
    assert [{k: v for k, v in r.items() if k != "recipe"} for r in both] == pairs(
        study(values, recipes=("align-distil", "distil-align"))
    )


# --- windows


def trap_values(row: Row) -> Row:
    """Seed 0 escapes; the student's threshold is 0.05 + seed / 1000, that of sft 0.2 + seed / 1000."""
    if row["stage"] != "align" or row["beta"] is None:
        return {}
    student = row["recipe"] == "distil-align"
    beta_c = (0.05 if student else 0.2) + row["seed"] / 1000
    mass = 0.9 if row["beta"] < beta_c or (student and row["seed"] == 0) else 0.1
    exact = 0.9 if row["beta"] < beta_c else 0.1
    trap = "anchor" if student and mass <= 0.5 else None
    return {"target_mass": mass, "exact_target_mass": exact, "beta_c": beta_c, "trap": trap}


def test_windows_show_the_trap_beside_theory(study: Any) -> None:
    betas = (0.3, 0.02, 0.1, None)
    (w,) = windows(study(trap_values, betas=betas))
    assert w["algorithm"] == "rloo"
    assert w["seeds"] == list(range(6))
    assert [b["beta"] for b in w["betas"]] == [0.02, 0.1, 0.3]
    assert [b["share"] for b in w["betas"]] == [0, 5 / 6, 0]
    assert [b["theory_share"] for b in w["betas"]] == [0, 1, 0]
    inside = w["betas"][1]
    assert inside["trapped_seeds"] == [1, 2, 3, 4, 5]
    assert inside["kinds"] == {"anchor": 5}
    exact = reference.binomtest(5, 6).proportion_ci(0.95, "exact")
    assert (inside["low"], inside["high"]) == pytest.approx((exact.low, exact.high))
    assert inside["student_mass"] == pytest.approx((0.9 + 5 * 0.1) / 6)
    assert inside["sft_mass"] == pytest.approx(0.9)
    assert inside["exact_student_mass"] == pytest.approx(0.1)
    assert w["observed"] == {"betas": [0.1], "low": 0.1, "high": 0.1}
    predicted = {"low": pytest.approx(0.0525), "high": pytest.approx(0.2025), "n": 6, "kinds": {"window": 6}}
    assert w["predicted"] == predicted
    assert w["by_seed"][3] == {"seed": 3, "low": pytest.approx(0.053), "high": pytest.approx(0.203), "kind": "window"}
    assert w["note"] is None


def test_windows_pair_seeds_and_say_what_is_lost(study: Any) -> None:
    def values(row: Row) -> Row:
        if row["seed"] == 5 and row["stage"] == "align" and row["recipe"] == "distil-align":
            return {"status": "failed"}
        return trap_values(row) | ({"beta_c": None} if row["seed"] == 4 else {})

    (w,) = windows(study(values, betas=(0.1,)))
    (b,) = w["betas"]
    assert (b["n"], b["lost"], b["share"]) == (5, 1, 4 / 5)
    assert b["theory_n"] == 5
    assert w["by_seed"][5] == {"seed": 5, "low": None, "high": pytest.approx(0.205), "kind": "unknown"}
    assert w["predicted"]["n"] == 4
    assert "a mean over 4 of 6 seeds" in w["note"]
    assert "1 pairs of seed and beta" in w["note"]


@pytest.mark.parametrize(
    ("student", "sft", "kind"),
    [
        (0.05, 0.2, "window"),
        (0.2, 0.2, "none"),
        (None, 0.2, "none"),  # the student has half of the mass by itself: null stands for infinity
        (None, None, "none"),
        (0.05, None, "open"),
        (0.0, 0.2, "window"),
    ],
)
def test_every_kind_of_exact_window(study: Any, student: float | None, sft: float | None, kind: str) -> None:
    def values(row: Row) -> Row:
        beta_c = student if row["recipe"] == "distil-align" else sft
        return {"beta_c": beta_c, "exact_target_mass": 0.9 if beta_c is None or row["beta"] < beta_c else 0.1}

    (w,) = windows(study(values, betas=(0.02, 0.1)))
    assert w["predicted"]["kinds"] == {kind: 6}
    assert w["by_seed"][0] == {"seed": 0, "low": student, "high": sft, "kind": kind}
    assert w["predicted"]["n"] == (0 if None in (student, sft) else 6)


def test_half_the_mass_is_a_trap_and_not_an_escape(study: Any) -> None:
    """science.md: at or below one half against above one half."""
    for student, sft, share in ((0.5, 0.51, 1), (0.5, 0.5, 0), (0.51, 0.6, 0)):
        mass = {"distil-align": student, "align-distil": sft}
        (w,) = windows(study(lambda row, m=mass: {"target_mass": m[row["recipe"]]}))
        assert w["betas"][0]["share"] == share


def test_windows_are_made_per_algorithm_and_setting(study: Any) -> None:
    varied = [{"distil.selectivity": s} for s in (1.0, 3.0)]
    found = windows(
        study(trap_values, algorithms=("rloo", "ppo"), varied=varied, betas=(0.1, 0.3)), ("distil.selectivity",)
    )
    assert [(w["distil.selectivity"], w["algorithm"]) for w in found] == [
        (1.0, "rloo"),
        (1.0, "ppo"),
        (3.0, "rloo"),
        (3.0, "ppo"),
    ]


# --- the whole


NUMBER = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 0.5, 1e308, -1e308, 5e-324]))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_summary_is_json_whatever_the_rows_hold(study: Any, data: st.DataObject) -> None:
    status = st.sampled_from(["ok", "ok", "ok", "failed", "blocked"])
    rows = study(
        lambda row: {m: data.draw(NUMBER) for m in ("reward", "target_mass", "beta_c")} | {"status": data.draw(status)},
        seeds=range(data.draw(st.integers(1, 6))),
        betas=data.draw(st.sampled_from([(0.1,), (None,), (0.1, 0.2)])),
    )
    found = summarise(rows)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_summary_does_not_depend_on_the_order_of_rows(study: Any) -> None:
    rows = damage(study(noisy(9), seeds=range(8), betas=(0.1, 0.3), algorithms=("rloo", "ppo")), 10)
    shuffled = [rows[i] for i in np.random.default_rng(11).permutation(len(rows))]

    def in_order(found: Row) -> Row:
        return {k: sorted(map(str, v)) if isinstance(v, list) else v for k, v in found.items()}

    assert in_order(summarise(rows)) == in_order(summarise(shuffled))


def test_the_default_study_takes_less_than_a_second(study: Any) -> None:
    rows = study(
        noisy(12),
        seeds=range(20),
        algorithms=("reinforce", "rloo", "grpo", "ppo", "dpo-offline", "dpo-online", "ipo"),
        betas=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
    ) + study(noisy(13), seeds=range(20), algorithms=("best-of-n", "sft-preferred"), betas=(None,))
    assert len(rows) == 6120
    start = time.process_time()
    found = summarise(rows)
    assert time.process_time() - start < 1
    assert len(found["cells"]) == 306
    assert (len(found["pairs"]), len(found["claims"])) == (51 * len(METRICS), 51 * len(CLAIMS))
    assert found["claims"][0]["family"] == 51
    assert all(math.isfinite(c["p_holm"]) for c in found["claims"])


def test_values_at_the_edge_of_floating_point_become_null(study: Any) -> None:
    found = summarise(study(lambda row: dict.fromkeys(ANY, 1e308 * (-1) ** row["seed"]) | {"target_mass": 1.0}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (w,) = windows(study(lambda row: {"beta_c": 1e308 if row["recipe"] == "distil-align" else 1.5e308}))
    assert (w["predicted"]["low"], w["predicted"]["n"]) == (None, 6)


# --- audited


def test_verdicts_are_counted_once_an_alignment_against_what_was_reached() -> None:
    def row(model: str, verdict: str | None, mass: float | None, **others: Any) -> Row:
        known = {"algorithm": "rloo", "model": model, "status": "ok", "reward": 0.5, "audit_reward": None}
        return known | {"audit_verdict": verdict, "audit_mass": None, "target_mass": mass, **others}

    rows = [
        row("a", "go", 0.9, audit_reward=0.6, audit_mass=0.8),
        row("a", "go", 0.9, audit_reward=0.6, audit_mass=0.8),  # shared by a second recipe
        row("b", "go", 0.5, audit_reward=0.4, audit_mass=0.8),  # one half is not more than half
        row("c", "no-go", 0.7, audit_reward=0.2, audit_mass=0.1),
        row("d", "insufficient data", None, status="failed", audit_reward=0.2, audit_mass=0.1),
        row("e", None, 0.2),  # not audited
        row("f", "refused", 0.2, algorithm="ipo"),
    ]
    rloo, ipo = audited(rows)
    assert rloo["verdicts"] == {
        "go": {"n": 2, "reached": 1},
        "no-go": {"n": 1, "reached": 1},
        "insufficient data": {"n": 0, "reached": 0},
        "refused": {"n": 0, "reached": 0},
    }
    assert (rloo["algorithm"], rloo["predicted"], rloo["failed"]) == ("rloo", 3, 1)
    assert rloo["reward_error"] == pytest.approx((0.1 + 0.1 + 0.3) / 3)
    assert rloo["mass_error"] == pytest.approx((0.1 + 0.3 + 0.6) / 3)
    assert ipo["verdicts"]["refused"] == {"n": 1, "reached": 0}
    assert ipo["reward_error"] is None and ipo["mass_error"] is None
    assert audited([row("e", None, 0.2)]) == []
