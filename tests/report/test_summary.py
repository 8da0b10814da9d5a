from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from alignfirst.report import build
from alignfirst.report.run_files import load
from alignfirst.report.sentences.order_verdict import verdict
from alignfirst.report.sentences.summary import plain


def test_the_summary_has_the_verdict_the_claims_and_figures_that_exist(built: Path) -> None:
    text = (built / "summary.md").read_text()
    found = verdict(load(built))
    assert found.headline in text
    assert all(line.statement in text for line in found.lines)
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) >= 6 and all((built / link).is_file() for link in links)


def test_tables_are_rectangular(built: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", (built / "summary.md").read_text(), re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"), ("*x*", r"\*x\*"), ("<b>", r"\<b\>"), ("[a](b)", r"\[a\](b)"), ("a\n# b", r"a \# b"),
        ("\u202e", "⟨U+202E⟩"),
    ],
)  # fmt: skip
def test_foreign_text_is_no_markup(text: str, escaped: str) -> None:
    assert plain(text) == escaped


def test_one_recipe_alone_has_no_verdict_and_still_a_summary(synthetic: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(recipes=("align-only",), algorithms=("grpo",), betas=(0.1,), seeds=2)
    run = synthetic.write(tmp_path / "run", spec)
    build(run)
    text = (run / "summary.md").read_text()
    assert "No verdict on order" in text and "## Claims" not in text
