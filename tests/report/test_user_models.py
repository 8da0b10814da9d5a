"""The report of own models: numbers are the records', and what the extra cost bought is said where it shows."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from alignfirst.report import build
from alignfirst.report.html import page
from alignfirst.report.run_files import RunFiles, load
from alignfirst.report.sentences.order_verdict import verdict
from alignfirst.report.user_models_page import Own, own


def made(synthetic: ModuleType, of_own: ModuleType, folder: Path, seeds: int = 1, **spec: object) -> RunFiles:
    shape = synthetic.Spec(seeds=seeds, algorithms=("dpo-offline",), betas=(0.1,))
    return load(synthetic.write(folder / "run", shape, of_own.OwnSpec(**spec)))


def test_every_stage_has_a_line_of_the_records(synthetic: ModuleType, of_own: ModuleType, tmp_path: Path) -> None:
    run = made(synthetic, of_own, tmp_path)
    found = own(run)
    assert len(found.lines) == len(run.rows) == 6 and found.spread == "95 % intervals over held-out prompts"
    at = found.columns.index("accuracy of implicit reward")
    by = {(line.setting.split(",")[0], line.stage): line for line in found.lines}
    assert by["align-distil", "distil"].cells[at] == ("0.80", "[0.75, 0.85]") and by["align-distil", "distil"].final
    assert by["distil-align", "align"].cells[at] == ("0.60", "[0.55, 0.65]")
    assert by["align-distil", "sft"].cells[at] == ("", "")
    assert "reward of answers" not in found.columns, "columns that nobody measured are left out"
    logp = found.columns.index("log-probability of chosen, nats")
    assert by["align-distil", "distil"].cells[logp][0] == "−22.0"


@pytest.mark.parametrize(
    ("gap", "width", "words"),
    [
        (0.2, 0.05, "that is what the extra cost bought, in this seed"),
        (0.2, 0.2, "the intervals over prompts overlap, so nothing is seen that the extra cost bought"),
        (-0.2, 0.05, "the extra cost bought the opposite"),
    ],
)
def test_what_the_extra_cost_bought_is_said_as_far_as_intervals_go(
    gap: float, width: float, words: str, synthetic: ModuleType, of_own: ModuleType, tmp_path: Path
) -> None:
    found = own(made(synthetic, of_own, tmp_path, gap=gap, width=width))
    [said] = found.bought
    assert "align-distil took 2.00 times the operations of distil-align" in said and words in said  # 4e9 and 2e9
    assert [line.times for line in found.costs] == ["2.00", "1.00"]
    assert [line.flops for line in found.costs] == ["4e+09", "2e+09"]
    # log-probability of chosen answers falls by 2 nats over both stages: per 1e12 operations
    assert [line.per_flop for line in found.costs] == ["−500", "−1000"]


def test_several_seeds_show_their_range_and_few_are_no_verdict(
    synthetic: ModuleType, of_own: ModuleType, tmp_path: Path
) -> None:
    found = own(made(synthetic, of_own, tmp_path, seeds=3, rewarded=True))
    assert found.spread == "lowest and highest of 3 seeds" and len(found.lines) == 6
    assert "reward of answers" in found.columns and "below 5 seeds that is no verdict" in found.bought[0]
    assert "below 5 seeds" not in own(made(synthetic, of_own, tmp_path / "more", seeds=5)).bought[0]


def test_audits_stand_beside_what_was_reached(synthetic: ModuleType, of_own: ModuleType, tmp_path: Path) -> None:
    found = own(made(synthetic, of_own, tmp_path))
    assert len(found.audits) == 2
    for line in found.audits:
        assert line.verdict == "insufficient data" and line.reason == "a verdict needs a reward"
        assert line.reward == line.mass == "–"
        assert line.pairs == "60 pairs; chosen likelier in a share of 0.50 [0.25, 0.75]; worst: lines 7 and 3"


def test_a_failed_stage_has_no_numbers_and_is_counted(
    synthetic: ModuleType, of_own: ModuleType, tmp_path: Path
) -> None:
    lost = {("align-distil", "dpo-offline", 0.1, 0): "diverged"}
    shape = synthetic.Spec(seeds=1, algorithms=("dpo-offline",), betas=(0.1,), failures=lost)
    found = own(load(synthetic.write(tmp_path / "run", shape, of_own.OwnSpec())))
    failed = [line for line in found.lines if "failed" in line.stage]
    assert failed and all(cell == ("", "") for line in failed for cell in line.cells)
    assert found.bought == () and found.costs[0].flops == "–"


def test_other_worlds_have_no_such_section(built: Path) -> None:
    run = load(built)
    assert own(run) == Own() and 'id="held-out"' not in page(run, verdict(run))


def test_hostile_texts_are_text_and_a_small_run_says_so(
    synthetic: ModuleType, of_own: ModuleType, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script>\u202e<img src=x onerror=alert(1)>"
    run = made(synthetic, of_own, tmp_path, texts=[hostile], prompts=[hostile], reason=hostile)
    text = page(run, verdict(run))
    section = text[text.index('<section id="held-out"') : text.index('<section id="plane"')]
    assert "&lt;script&gt;alert(1)" in section and "<script>alert" not in text and "<img src=x" not in text
    assert "\u202e" not in section and "⟨U+202E⟩" in section
    assert "This size shows the machinery, not the claim" in text
    assert build(run.path).exists()
