"""What the report makes of audits: counts in words, one point an alignment, nothing where nothing was audited."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report.audit.audited_points import audited
from alignfirst.report.html import page
from alignfirst.report.payload import payload
from alignfirst.report.run_files import RunFiles, load
from alignfirst.report.sentences.order_verdict import verdict
from alignfirst.report.sentences.summary import summary
from alignfirst.stats.audited import VERDICTS


def line(algorithm: str, go: tuple[int, int], no: tuple[int, int], refused: int = 0) -> dict[str, Any]:
    counts = {"go": go, "no-go": no, "insufficient data": (3, 1), "refused": (refused, 0)}
    return {
        "algorithm": algorithm,
        "verdicts": {v: {"n": n, "reached": reached} for v, (n, reached) in counts.items()},
        "predicted": 0 if refused else go[0] + no[0] + 3,
        "reward_error": None if refused else 0.0423,
        "mass_error": None if refused else 0.1,
        "failed": 0,
    }


def with_audits(run: RunFiles, *lines: dict[str, Any]) -> RunFiles:
    return replace(run, statistics={**run.statistics, "audited": list(lines)})


def test_counts_are_said_in_one_sentence_and_a_line_an_algorithm(built: Path) -> None:
    lines = [line("grpo", (5, 4), (7, 1)), line("ppo", (1, 1), (0, 0)), line("ipo", (0, 0), (0, 0), 9)]
    run = with_audits(load(built), *lines)
    found = audited(run)
    assert found.sentence == (
        "Before any training the audit said go for 6 alignments (5 reached the target) and no-go for 7 (1 reached it "
        "nevertheless); it left 9 undecided and predicts nothing for 9."
    )
    assert [x.algorithm for x in found.lines] == ["grpo", "ppo", "ipo"]
    assert found.lines[0].verdicts == ("4 of 5", "1 of 7", "1 of 3", "–")
    assert (found.lines[0].reward_error, found.lines[2].reward_error) == ("0.042", "–")
    assert found.sentence in summary(run, verdict(run), [])


def test_the_points_are_the_alignments_of_the_records(built: Path) -> None:
    run = load(built)
    data = payload(run)
    points = data["audited"]
    rows = {r["model"]: r for r in run.rows if r["audit_reward"] is not None and r["status"] == "ok"}
    assert len(points["c"]) == len(rows) > 100
    found = sorted(
        (data["algorithms"][a], data["betas"][b], s, VERDICTS[c]) for a, b, s, c in
        zip(*(points[k] for k in ("a", "b", "s", "c")), strict=True)
    )  # fmt: skip
    assert found == sorted((r["algorithm"], r["beta"], r["seed"], r["audit_verdict"]) for r in rows.values())
    for name, column in (("said_reward", "audit_reward"), ("reward", "reward"), ("said_mass", "audit_mass")):
        assert sorted(points[name]) == pytest.approx(sorted(r[column] for r in rows.values()), rel=5e-4, abs=1e-9)


def test_the_table_stands_on_the_page_without_a_script(built: Path) -> None:
    run = load(built)
    text, found = page(run, verdict(run)), verdict(run).audited
    section = text[text.index('<section id="audited"') : text.index('<section id="claims"')]
    assert all(f">{x}</td>" in section for a in found.lines for x in a.verdicts)
    assert found.sentence in text[: text.index('<section id="exhibits"')], "a line in the verdict card"


def test_a_run_without_audits_has_no_such_section(synthetic: ModuleType, tmp_path: Path) -> None:
    """A world that is not audited, and runs of the version before."""
    run = load(synthetic.write(tmp_path / "run", synthetic.Spec(algorithms=("grpo",), betas=(0.1,), seeds=2)))
    rows = [r | {k: None for k in r if k.startswith("audit_")} for r in run.rows]
    old = {k: v for k, v in run.statistics.items() if k != "audited"}
    for statistics in (old, {**old, "audited": []}, {**old, "audited": [line("ipo", (0, 0), (0, 0), 9)]}):
        bare = replace(run, rows=rows, statistics=statistics)
        text = page(bare, verdict(bare))
        assert 'id="audited"' not in text and "#audited" not in text
        assert "Audited" not in summary(bare, verdict(bare), [])
        assert json.dumps(payload(bare)["audited"]) == "{}"
