from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report.run_files import RunFiles, load
from alignfirst.report.sentences.headline_numbers import focus_beta
from alignfirst.report.sentences.order_verdict import OrderVerdict, verdict


@pytest.fixture(scope="module")
def run(built: Path) -> RunFiles:
    return load(built)


def judged(run: RunFiles, verdicts: list[str]) -> OrderVerdict:
    """The run with its claims on reward replaced by these verdicts."""
    template = next(c for c in run.statistics["claims"] if c["claim"] == "higher-reward")
    claims = [template | {"verdict": v, "algorithm": f"a{i}"} for i, v in enumerate(verdicts)]
    statistics = {**run.statistics, "claims": claims}
    return verdict(dataclasses.replace(run, statistics=statistics))


@pytest.mark.parametrize(
    ("verdicts", "tone", "words"),
    [
        (["holds"] * 3 + ["undecided"], "holds", "higher reward in 3 of 4 settings, lower in none, 1 undecided."),
        (["holds"] * 3 + ["reversed"], "holds", "higher reward in 3 of 4 settings, lower in 1."),
        (["reversed"] * 2 + ["holds"], "reversed", "lower reward in 2 of 3 settings, higher in 1."),
        (["reversed"], "reversed", "lower reward in 1 of 1 setting, higher in none."),
        (["reversed", "holds"], "undecided", "Neither order is ahead"),
        (["undecided"] * 5, "undecided", "in none of 5 settings"),
        (["insufficient"] * 5, "insufficient", "Too few seeds for a verdict"),
        (["holds", "insufficient"], "holds", "1 with too few seeds"),
        ([], "insufficient", "this run holds align-distil and distil-align, not"),
    ],
)
def test_the_headline_counts_what_holds_and_what_does_not(
    run: RunFiles, verdicts: list[str], tone: str, words: str
) -> None:
    found = judged(run, verdicts)
    assert found.tone == tone
    assert words in found.headline


def test_reversed_settings_are_named(run: RunFiles) -> None:
    found = judged(run, ["holds", "reversed", "reversed"])
    (line,) = found.lines
    assert line.counts == {"holds": 1, "undecided": 0, "reversed": 2, "insufficient": 0}
    assert "a1 (beta 0.02); a2 (beta 0.02)" in line.against


def test_counts_agree_with_the_statistics(run: RunFiles) -> None:
    for line in verdict(run).lines:
        claims = [c for c in run.statistics["claims"] if c["claim"] == line.id]
        assert line.total == len(claims) == sum(line.counts.values())
        assert line.counts["holds"] == sum(c["verdict"] == "holds" for c in claims)


def test_the_strongest_effect_is_the_largest_that_holds(run: RunFiles) -> None:
    line = next(x for x in verdict(run).lines if x.id == "higher-reward")
    held = [c for c in run.statistics["claims"] if c["claim"] == "higher-reward" and c["verdict"] == "holds"]
    best = max(held, key=lambda c: c["estimate"])
    assert f"+{best['estimate']:.3f}" in line.strongest
    assert f"({best['algorithm']}, beta {best['beta']:g})" in line.strongest


def window(low: float | None, high: float | None) -> dict[str, Any]:
    return {"predicted": {"low": low, "high": high}}


def test_the_quoted_beta_is_the_middle_of_the_predicted_window() -> None:
    grid = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]
    assert focus_beta([window(0.09, 0.2)], grid) == 0.15  # geometric middle 0.134
    assert focus_beta([window(0.02, 0.1)], grid) == 0.05
    assert focus_beta([window(None, None)], grid) == 0.15
    assert focus_beta([window(0.3, 0.1)], grid) == 0.15
    assert focus_beta([], []) is None


def test_key_rows_are_the_statistics_at_that_beta(run: RunFiles) -> None:
    found = verdict(run)
    pairs = {
        p["algorithm"]: p for p in run.statistics["pairs"]
        if p["metric"] == "reward" and p["beta"] in (float(found.key_beta), None)
    }  # fmt: skip
    assert [r.algorithm for r in found.key_rows] == list(pairs)
    for r in found.key_rows:
        p = pairs[r.algorithm]
        assert r.difference == f"{p['mean']:+.3f}".replace("-", "−")
        assert r.lead == ("ahead" if p["low"] > 0 else "behind" if p["high"] < 0 else "")


def shown(text: str) -> float:
    """A number as the table writes it, with a true minus sign."""
    return float(text.replace("−", "-"))


def test_columns_of_the_key_table_are_the_two_sides_of_its_difference(run: RunFiles) -> None:
    """No seed is lost, so the mean difference is the first column less the second, to the last digit shown."""
    rows = verdict(run).key_rows
    assert max(abs(shown(r.difference)) for r in rows) > 0.01, "else columns the wrong way round would do"
    for r in rows:
        assert shown(r.first) - shown(r.second) == pytest.approx(shown(r.difference), abs=0.0016)


@pytest.mark.parametrize(
    ("intervals", "kind"),
    [
        ([(0.1, 0.3), (0.2, 0.4)], "align-distil"),
        ([(-0.3, -0.1), (-0.4, -0.2)], "distil-align"),
        ([(0.1, 0.3), (-0.1, 0.4)], ""),
        ([(-0.3, -0.1), (-0.4, 0.2)], ""),
        ([(0.1, 0.3), (-0.4, -0.2)], ""),
    ],
)
def test_the_tile_of_the_quoted_beta_marks_the_order_that_is_ahead(
    run: RunFiles, intervals: list[tuple[float, float]], kind: str
) -> None:
    """`ak` where every algorithm's interval of align-distil minus distil-align is above 0, `ka` where below."""
    focus = float(verdict(run).key_beta)
    at_focus = [p for p in run.statistics["pairs"] if p["metric"] == "reward" and p["beta"] == focus]
    precision = [p for p in run.statistics["pairs"] if p["metric"] == "target_precision" and p["beta"] == focus]
    pairs = [
        p | {"algorithm": f"a{i}", "mean": (low + high) / 2, "low": low, "high": high}
        for p in (at_focus[0], precision[0])
        for i, (low, high) in enumerate(intervals)
    ]
    tile = verdict(dataclasses.replace(run, statistics={**run.statistics, "pairs": pairs})).headline_numbers[0]
    assert f"at beta {focus:g}" in tile.caption
    assert tile.kind == kind


def test_a_study_of_variants_stays_short_and_says_what_is_left_out(synthetic: ModuleType, tmp_path: Path) -> None:
    vary = {"distil.selectivity": [1.0, 2.0, 3.0, 4.0], "distil.components": [2, 4, 6, 8]}
    spec = synthetic.Spec(seeds=5, algorithms=("grpo",), betas=(0.1,), vary=vary)
    found = verdict(load(synthetic.write(tmp_path / "run", spec)))
    assert (len(found.windows), found.windows_left_out) == (12, 4)
    assert (len(found.key_rows), found.key_rows_left_out) == (12, 4)
    assert found.key_rows[0].setting == "distil.components 2, distil.selectivity 1"


@pytest.mark.parametrize(("seeds", "told"), [(1, True), (4, True), (5, False)])
def test_a_trial_of_own_models_shows_the_machinery(run: RunFiles, seeds: int, told: bool) -> None:
    own = {"world": "hf", "updates": 9, "held_out_pairs": 32, "measured_on": 16}
    some = [r | own for r in run.rows if r["seed"] in sorted({r["seed"] for r in run.rows})[:seeds]]
    notes = verdict(dataclasses.replace(run, rows=some)).notes
    on = "alignments of 9 updates, measured on 32 held-out pairs and 16 answers"
    assert (f"This size shows the machinery, not the claim: {on}." in notes) == told
    of_mixtures = verdict(dataclasses.replace(run, rows=[r | {"world": "mog"} for r in some])).notes
    assert not any("machinery" in note for note in of_mixtures)


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed can show"), (4, "4 seeds can show"), (5, None)])
def test_few_seeds_are_told_for_what_they_are(
    synthetic: ModuleType, tmp_path: Path, seeds: int, words: str | None
) -> None:
    found = verdict(load(synthetic.write(tmp_path / "run", synthetic.Spec(seeds=seeds, algorithms=("grpo",)))))
    assert [n.startswith(words) and "it cannot show" in n for n in found.notes if words] == [True] * (words is not None)
    assert words is not None or not found.notes


def test_failures_are_in_the_verdict(synthetic: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(seeds=3, algorithms=("grpo",), betas=(0.1,), failures={("align-distil", "grpo", 0.1, 0): "x"})
    found = verdict(load(synthetic.write(tmp_path / "run", spec)))
    assert found.notes and "1 row failed and 1 row was blocked" in found.notes[0]
