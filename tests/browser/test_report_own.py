"""The report of own models in a real browser: tables at two widths, answers that are shown and never run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report import build

pytestmark = pytest.mark.browser

SET = "window.__pwned=1"
HOSTILE = (
    f"<script>{SET}</script>",
    f"<img src=http://x.invalid/a.png onerror={SET}>",
    f"\u202e{{{{7*7}}}} ${{{SET}}}",
)


@pytest.fixture(scope="module")
def report(synthetic: ModuleType, of_own: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = synthetic.Spec(name="own", seeds=1, algorithms=("dpo-offline",), betas=(0.1,))
    edit = of_own.OwnSpec(texts=HOSTILE, prompts=HOSTILE[:2], reason=HOSTILE[0])
    return Path(build(synthetic.write(tmp_path_factory.mktemp("own") / "run", spec, edit)))


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tables_are_whole_and_the_page_is_no_wider_than_the_window(
    report: Path, open_tab: Any, width: int, scheme: str
) -> None:
    with open_tab(report, width=width, scheme=scheme) as tab:
        section = tab.page.locator("#held-out")
        section.scroll_into_view_if_needed()
        assert section.locator("table").count() == 3
        measured = section.locator("table").first
        assert measured.locator("tbody tr").count() == 6 and measured.locator("tr.final").count() == 2
        cells = measured.locator("tr").nth(3).locator("td").all_inner_texts()
        assert any("0.80" in cell and "[0.75, 0.85]" in cell for cell in cells)
        assert "2.00 times the operations" in section.locator(".bought").inner_text()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        for region in section.locator(".scroll").all():  # wide tables scroll by themselves, by keyboard too
            assert region.get_attribute("tabindex") == "0" and region.get_attribute("aria-label")
        assert tab.page.locator("nav a[href='#held-out']").count() >= 1


def test_answers_reasons_and_prompts_are_text(report: Path, open_tab: Any) -> None:
    with open_tab(report) as tab:
        tab.page.locator("#texts").scroll_into_view_if_needed()
        tab.page.locator("#texts .plot").get_by_text("{{7*7}}").first.wait_for()
        assert tab.page.evaluate("window.__pwned") is None
        shown = tab.page.locator("#texts").inner_text()
        assert HOSTILE[0] in shown and "⟨U+202E⟩" in shown and "{{7*7}}" in shown
        assert HOSTILE[0] in tab.page.locator("#held-out").inner_text()
        assert tab.page.locator("#texts script, #texts img, #held-out script, #held-out img").count() == 0
        assert "This size shows the machinery" in tab.page.locator("#verdict").inner_text()
