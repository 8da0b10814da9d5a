"""The page of an audit in a real browser: text of others stays text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ledger import Count
from payloads import FEW, SET

from alignfirst.report import build_audit

sys.path.insert(0, str(Path(__file__).parent))

from audit_figures import figure

pytestmark = pytest.mark.browser

STRINGS = (
    *FEW,
    f"<details open ontoggle={SET}><summary>x</summary></details>",
    "__proto__",
    "constructor",
    "<b>" * 200 + "wide" * 200,
)


@pytest.fixture(scope="module")
def hostile(audits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile models, files, algorithms, reasons, advice, notes, prompts, answers and tokens."""

    def change(plain: dict[str, Any]) -> None:
        plan, window = plain["plans"][0], next(iter(plain["windows"].values()))
        plain["plans"] = [dict(plan, algorithm=s, because=s, todo=[s]) for s in STRINGS]
        plain["windows"] = {s: dict(window, note=s) for s in STRINGS}
        plain["notes"] = list(STRINGS)
        plain["target"] = plain["coverage"]["of"] = STRINGS[0]
        plain["headline"] = STRINGS[1]
        plain["about"] |= {f"about {s}": s for s in STRINGS}
        plain["about"]["tokenising"] = {s: s for s in STRINGS}
        dropped = {s: {"count": 1, "lines": [3]} for s in STRINGS}
        plain["about"]["pairs"] = {"rows": 9, "kept": 3, "dropped": dropped, "notes": dropped}
        plain["reference"]["reward"] |= {"low": None, "why": STRINGS[2]}
        for row, text in zip(plain["pairs"]["worst"], STRINGS, strict=False):
            row["prompt"] = text

    folder = tmp_path_factory.mktemp("audit") / "hostile"
    random = np.random.default_rng(0)
    rows = audits.samples(random, 300) + audits.pairs(random, 2 * len(STRINGS), texts=STRINGS)
    audits.write(folder, rows, tokens=STRINGS, title=STRINGS[10], change=change)
    return Path(build_audit(folder))


def test_there_are_more_than_twenty_hostile_strings() -> None:
    assert len(set(STRINGS)) == 24


@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_text_is_inert_everywhere(open_tab: Any, hostile: Path, width: int) -> None:
    with open_tab(hostile, width=width) as tab:
        page = tab.page
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # every figure is drawn
        for node in page.locator("[data-figure]").all():
            node.scroll_into_view_if_needed()
            node.locator("details.data summary").click()
            plot = node.locator(".nsewdrag").first
            if plot.count():
                plot.hover(force=True)
        choose_everything(page)
        page.locator("#rows-search").fill("<")
        page.locator("#rows-search").fill("")
        while (more := page.locator("#rows .save button")).is_visible():
            more.click()
        assert page.locator(".worst > li").count() == 2 * len(STRINGS)
        page.wait_for_timeout(200)
        assert page.evaluate("window.__pwned") is None
        assert page.evaluate("[...document.scripts].filter(s => s.type !== 'application/json').length") == 3
        strange = "img, iframe, object, embed, math, a[href^='javascript'], main style, meta[http-equiv=refresh]"
        assert page.locator(strange).count() == 0
        names = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        assert page.evaluate(f"{names}.filter(n => n.startsWith('on'))") == []
        assert page.evaluate("document.documentElement.scrollWidth") == width


def choose_everything(page: Any) -> None:
    """Every option of every selector once: all text goes through every figure."""
    page.evaluate(
        """() => {
            for (const select of document.querySelectorAll('main select')) {
                for (const option of select.options) {
                    select.value = option.value;
                    select.dispatchEvent(new Event('change'));
                }
            }
        }"""
    )


def test_hostile_text_is_shown_as_what_it_is(open_tab: Any, hostile: Path) -> None:
    with open_tab(hostile) as tab:
        page = tab.page
        assert page.locator("p.study").inner_text() == f"Audit of {STRINGS[10]}"
        assert page.locator("h1").inner_text() == STRINGS[1]
        assert page.title() == f"{STRINGS[10]}: audit"
        plans = page.locator("table.plans tbody th").all_inner_texts()
        assert plans[0] == STRINGS[0] and plans[21] == "__proto__"
        assert plans[16] == f"⟨U+202E⟩gnp.{SET}⟨U+2066⟩", "a reordering character is written out"
        options = page.locator("[data-figure=tilt] option").all_inner_texts()
        assert options[2].startswith(f"{STRINGS[2]} at beta 0.1: ")
        page.locator("#rows").scroll_into_view_if_needed()
        assert page.locator(".worst .prompt").first.inner_text() == STRINGS[0]
        answer = page.locator(".worst .answer").first.text_content()
        assert STRINGS[0] in answer and STRINGS[18] in answer
        provenance = page.locator("#provenance").inner_text()
        assert STRINGS[2] in provenance and STRINGS[12] in provenance


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_rows_are_a_page_like_any_other(
    open_tab: Any, audits: ModuleType, tmp_path: Path, count: Callable[[str], Count]
) -> None:
    """The page of an audit of 100,000 rows, every text of them hostile, is no larger than 8 MB and answers like any
    other: it says how much of them it draws and lists, and finds rows by their words."""
    counted, texts = count("load: page of 100,000 rows"), [f"{s} bridge" for s in STRINGS]
    audits.write(tmp_path / "big", audits.pairs(np.random.default_rng(0), 50_000, texts=texts), plans=())
    path = build_audit(tmp_path / "big")
    with counted.trials(1):
        counted.most(page_mb=path.stat().st_size / 1e6)
        assert path.stat().st_size <= 8_000_000
        for width in (390, 1440):
            with open_tab(path, width=width) as tab:
                scatter = figure(tab.page, "scatter")
                assert "of 50\u202f000 rows, taken evenly" in scatter.locator("figcaption").inner_text()
                figure(tab.page, "cost")
                assert "worst 1\u202f000 of 50\u202f000" in tab.page.locator("#rows [role=status]").inner_text()
                tab.page.locator("#rows-search").fill("bridge")
                assert tab.page.locator(".worst > li").count() == 10
                assert "it leaves out" in tab.page.locator("#verdict").inner_text()
                assert tab.page.evaluate("document.documentElement.scrollWidth") == width
