"""Words follow constants: with another level, other seeds or another palette no text says what was true before."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.auditing import constants
from alignfirst.report import build, palette
from alignfirst.report.audit import page as audit_page
from alignfirst.report.audit import verdict_card
from alignfirst.report.sentences import order_verdict, words
from alignfirst.stats import intervals

STATIC = Path(palette.__file__).parent / "static"
COLOURS = {colour.word for colour in vars(palette).values() if isinstance(colour, palette.Colour)}


@pytest.fixture
def small(synthetic: ModuleType, tmp_path: Path) -> Path:
    """Three seeds: too few for an interval."""
    spec = synthetic.Spec(algorithms=("grpo",), betas=(0.1, 0.3), seeds=3)
    return Path(synthetic.write(tmp_path / "run", spec))


def body(page: Path) -> str:
    """What a reader sees of a page, and what its scripts are given; not the scripts."""
    text = page.read_text()
    markup, _, rest = text[text.index("<body") :].partition('id="payload">')
    return " ".join((markup + rest[: rest.index("</script>")]).split())


def test_level_and_seeds_of_a_study(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "LEVEL", 0.975)
    for module in (intervals, order_verdict):
        monkeypatch.setattr(module, "MIN_SEEDS", 7)
    page, summary = body(build(small)), (small / "summary.md").read_text()
    for text in (page, summary):
        assert "97.5 % interval" in text and "none below 7 seeds" in text
        assert "95 %" not in text and not re.search(r"\b5 (paired )?seeds", text)
    assert "needs 7 paired seeds" in page and '"level":"97.5 %"' in page and '"min_seeds":7' in page


def test_the_level_below_static_figures(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "LEVEL", 0.9)
    build(small)
    svg = (small / "figures" / "order-reward.svg").read_text()
    assert "90 % interval" in svg and "95 %" not in svg


def test_colours_named_in_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = dict(palette.RECIPE_LOOKS)
    looks["align-distil"] = replace(looks["align-distil"], colour=palette.Colour("teal", "#008080", "#00ffff"))
    monkeypatch.setattr(words, "RECIPE_LOOKS", looks)
    monkeypatch.setattr(palette, "RECIPE_LOOKS", looks)
    assert words.of_study()["colours"]["align-distil"] == "teal"
    assert "--align-distil:#008080;" in palette.style_sheet() and "--align-distil:#00ffff;" in palette.style_sheet()
    assert palette.look_of("align-distil", 0).plain()["word"] == "teal"


@pytest.mark.parametrize("file", sorted(STATIC.rglob("*.js")), ids=lambda file: file.name)
def test_scripts_write_no_colour_and_no_level_themselves(file: Path) -> None:
    """In strings; comments may say what a colour map is like."""
    code = re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.MULTILINE)
    said = " ".join(re.findall(r'"[^"\n]*"|`[^`]*`', code))
    assert not re.search(rf"\b({'|'.join(COLOURS)})\b", said, re.IGNORECASE)
    assert not re.search(r"\b95\b|\b5 seeds|#[0-9a-f]{6}\b", said) or file.name == "density.js"


def test_every_colour_of_a_style_sheet_is_one_of_the_palette() -> None:
    named = set(re.findall(r"--([\w-]+):", palette.style_sheet()))
    own = {"sans", "mono", "bar", "call", "share", "recipe", "panels", "rows", "tag"}
    for file in sorted(STATIC.rglob("*.css")):
        text = file.read_text()
        assert set(re.findall(r"var\(--([\w-]+)", text)) <= named | own, file.name
        assert not re.search(r"#[0-9a-f]{6}\b", text), file.name


def test_the_level_of_an_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    number: dict[str, Any] = {"value": 0.25, "low": 0.125, "high": 0.5, "why": None}
    assert verdict_card.span(number) == "95 % interval 0.125 to 0.500"
    for module in (verdict_card, audit_page, constants):
        monkeypatch.setattr(module, "LEVEL", 0.8)
    assert verdict_card.span(number).startswith("80 % interval ")
    assert words.of_audit()["level"] == "80 %"


def test_what_is_seen_at_least_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = {"value": None, "low": None, "high": None, "why": "not asked"}
    plan = dict.fromkeys(("expected_hits", "rollouts_needed", "draws_to_see_target"), unknown)
    monkeypatch.setattr(verdict_card, "SEEN", 0.9)
    assert verdict_card._needs(plan)[-1][0] == "Draws that show the target once, with 90 %"
