"""docs/audit.md shows the figures that the benchmark wrote, and the targets are judged, not remembered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignfirst.auditing import constants

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
EVIDENCE: dict[str, Any] = json.loads((ROOT / "src" / "alignfirst" / "auditing" / "evidence.json").read_text())
METRICS = ("spearman audit", "auc audit", "mae", "decided right", "go right", "undecided")


def table(section: str, columns: int) -> dict[str, list[str]]:
    """Rows by algorithm of the first table after a piece of text that has so many columns."""
    found = {}
    for line in PAGE.split(section, 1)[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == columns and re.fullmatch(r"`[a-z-]+`", cells[0]):
            found[cells[0].strip("`")] = cells[1:]
        elif found:
            return found
    return found


def three(interval: list[float]) -> str:
    return f"{interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}]"


def test_the_constants_are_those_that_the_fit_chose() -> None:
    for algorithm, fitted in EVIDENCE["fit"].items():
        gate = constants.GATES[algorithm]
        assert fitted["fitted"] == {name: getattr(gate, name) for name in fitted["fitted"]}, algorithm
    assert constants.GATES["rloo"] == constants.GATES["reinforce"]


@pytest.mark.parametrize("algorithm", list(constants.GATES))
def test_the_page_shows_what_was_measured(algorithm: str) -> None:
    scores = EVIDENCE["scores"][algorithm]
    assert table("## Evidence", 7)[algorithm] == [three(scores[name]) for name in METRICS]
    names = ("audit", "tilt without gate", "recall", "hits", "discrimination", "-beta")
    both = [f"{scores['spearman ' + n][0]:.2f} / {scores['auc ' + n][0]:.2f}" for n in names]
    assert table("Against single numbers", 7)[algorithm] == both
    inside = [three(scores[f"{name} in its interval"]) for name in ("reward", "mass")]
    assert table("How often the true end", 3)[algorithm] == inside
    plain = EVIDENCE["plain"][algorithm]
    pair = f"{plain['spearman audit'][0]:.2f} / {plain['auc audit'][0]:.2f}"
    shares = [f"{plain[name][0]:.2f}" for name in METRICS[2:]]
    assert table("Without a teacher", 6)[algorithm] == [pair, *shares]


def test_the_order_is_shown_where_it_is_called() -> None:
    shown = table("**The order.**", 3)
    assert set(shown) == set(constants.ON_POLICY)
    for algorithm, cells in shown.items():
        told = EVIDENCE["order"][algorithm]
        assert cells == [three(told["right"]), f"{told['majority']:.3f}"]


def test_misses_are_published() -> None:
    """Every miss stands on the page; where there is none, the page says that."""
    for miss in EVIDENCE["misses"]:
        assert miss.split(" [")[0] in PAGE
    assert ("None is missed here." in PAGE) == (not EVIDENCE["misses"])


def test_every_failure_case_has_its_count_and_an_example() -> None:
    section = PAGE.split("## What the audit cannot know")[1]
    for name, told in EVIDENCE["failures"].items():
        assert name in section.lower() and told["example"]["algorithm"]
    cases = EVIDENCE["failures"]
    trap = cases["exploration trap"]
    assert f"{trap['cells']} of {trap['of']:,} trainings" in section and f"{trap['calls']['go']} of them" in section
    assert (
        f"{cases['diffuse hits']['of']} trainings" in section and f"{cases['diffuse hits']['cells']} failed" in section
    )
    assert f"{cases['hard labels']['cells']} of {cases['hard labels']['of']} trainings" in section
    short = cases["undertrained"]
    assert f"{short['calls']['go']} of {short['go in all']} verdicts `go` were wrong" in section


GRAMMAR: dict[str, Any] = json.loads((ROOT / "benchmarks" / "audit_grammar.json").read_text())
ON_TEXT = ("spearman audit", "auc audit", "mae", "decided right", "no-go right", "undecided")


@pytest.mark.parametrize("section, cells", [("With at least 10", "ess at least 10"), ("All cells, also", "all")])
def test_the_page_shows_what_was_measured_on_text(section: str, cells: str) -> None:
    shown = table(section, 8)
    assert set(shown) == {"reinforce", "grpo", "both"}
    for algorithm, row in shown.items():
        scores = GRAMMAR[cells][algorithm]
        assert row == [str(scores["cells"]), *(three(scores[name]) for name in ON_TEXT)]


def test_baselines_on_text_are_those_that_were_measured() -> None:
    names = ("audit", "tilt without gate", "recall", "hits", "discrimination", "-beta")
    shown = table("on the same\ncells (Spearman / AUC)", 7)
    assert set(shown) == {"reinforce", "grpo", "both"}
    for algorithm, row in shown.items():
        scores = GRAMMAR["ess at least 10"][algorithm]
        assert row == [f"{scores['spearman ' + n][0]:.2f} / {scores['auc ' + n][0]:.2f}" for n in names]


def test_the_constants_for_text_are_those_of_their_fit_and_the_page_tells_before_and_after() -> None:
    fitted, shipped = GRAMMAR["fit"]["fitted"], constants.TEXT_GATES["grpo"]
    assert (fitted["hits"], fitted["quality"], fitted["pull"]) == (shipped.hits, shipped.quality, shipped.pull)
    for when in ("before", "after"):
        scores = GRAMMAR["the rule for text"][f"grpo, {when}"]
        told = " | ".join(three(scores[name]) for name in (*ON_TEXT, "mass in its interval"))
        assert f"| {when} | {told} |" in PAGE


def test_targets_on_text_are_judged() -> None:
    scores = GRAMMAR["ess at least 10"]["both"]
    met = scores["spearman audit"][0] >= 0.8 and scores["auc audit"][0] >= 0.9
    assert met == (not GRAMMAR["misses"]) and ("neither is missed" in PAGE) == met
