"""Text of a study is text on the page, wherever it comes from and whatever it looks like."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from payloads import FEW, SET

from alignfirst.report import build

pytestmark = pytest.mark.browser

PLOTLY = "<b>x</b><br><i>y</i>"  # what plotly would take for markup


@pytest.fixture(scope="module")
def hostile(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose name, command, config, algorithms, recipe, varied key, values and errors are all hostile."""
    failures = {("align-distil", a, 0.1, 0): s for a, s in zip(FEW, FEW, strict=True)}
    spec = synthetic.Spec(
        name=FEW[10], preset=FEW[2], status=FEW[0], command=" ".join(FEW), note="\n".join(FEW),
        algorithms=FEW, betas=(0.1, 0.3), seeds=6, recipes=("align-distil", "distil-align", FEW[4], PLOTLY),
        failures=failures, vary={FEW[3]: [FEW[1], FEW[7]]},
    )  # fmt: skip
    return Path(build(synthetic.write(tmp_path_factory.mktemp("hostile") / "run", spec)))


def test_there_are_twenty() -> None:
    assert len(set(FEW)) == 20


@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_text_is_inert_everywhere(open_tab: Any, hostile: Path, width: int) -> None:
    with open_tab(hostile, width=width) as tab:
        page = tab.page
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # every figure is drawn
        page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
        for node in page.locator("[data-figure]").all():
            node.scroll_into_view_if_needed()
            node.locator("details.data tbody tr").first.wait_for()
            plot = node.locator(".nsewdrag").first
            if plot.count():
                plot.hover(force=True)
        choose_everything(page)
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
            for (const select of document.querySelectorAll('.figure select, #claims-table select')) {
                for (const option of [...select.options].slice(0, 24)) {
                    select.value = option.value;
                    select.dispatchEvent(new Event('change'));
                }
            }
        }"""
    )


def test_hostile_text_is_shown_as_what_it_is(open_tab: Any, hostile: Path) -> None:
    with open_tab(hostile) as tab:
        page = tab.page
        assert page.locator("p.study").inner_text().startswith(FEW[10])
        page.locator("summary", has_text="Resolved configuration").click()
        config = page.locator("pre").inner_text()
        assert FEW[0] in config
        options = page.locator("[data-figure=plane] select").first.locator("option").all_inner_texts()
        assert options[0] == FEW[0] and options[13] == FEW[13]
        assert options[16] == f"⟨U+202E⟩gnp.{SET}⟨U+2066⟩", "a reordering character is written out"
        plane = page.locator("[data-figure=plane]")
        plane.scroll_into_view_if_needed()
        plane.locator(".legendtext").first.wait_for(state="attached")
        legend = plane.locator(".legendtext").all_text_contents()
        assert legend[2:] == [FEW[4][:23] + "…", PLOTLY], "plotly draws markup as text"
        failures = page.locator("#provenance table").first.inner_text()
        assert FEW[2] in failures and FEW[12] in failures
