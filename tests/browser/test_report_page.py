"""The report in a real browser: it shows, it answers, it keeps to itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

FIGURES = ("exhibits", "plane", "heatmap", "frontier", "exact", "audited", "cost", "seeds")


def figure(page: Any, name: str) -> Any:
    """A figure, scrolled into view and drawn."""
    found = page.locator(f"[data-figure={name}]")
    found.scroll_into_view_if_needed()
    drawn = ".plot canvas" if name == "exhibits" else ".plot .main-svg"
    found.locator(drawn).first.wait_for(state="attached")
    return found


def pixels(canvas: Any) -> str:
    return str(canvas.evaluate("c => c.toDataURL()"))


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_draws_and_nothing_overflows(open_tab: Any, report: Path, width: int, scheme: str) -> None:
    with open_tab(report, width=width, scheme=scheme) as tab:
        for name in FIGURES:
            found = figure(tab.page, name)
            assert found.locator("figcaption").inner_text().strip()
            box = found.locator(".plot").bounding_box()
            assert box is not None and box["height"] > 150 and box["width"] <= width
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        ends = "[...document.querySelectorAll('.plot .main-svg')].map(s => s.getBoundingClientRect().right)"
        assert max(tab.page.evaluate(ends)) <= width


def test_the_slider_changes_densities_numbers_and_every_other_figure(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        film = figure(tab.page, "exhibits")
        aligned = film.locator(".panel canvas").nth(2)
        before, caption = pixels(aligned), film.locator("figcaption").inner_text()
        sft = pixels(film.locator(".panel canvas").nth(1))
        slider = film.get_by_role("slider")
        slider.focus()
        for _ in range(6):
            tab.page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == "beta 0.5"
        aligned = film.locator(".panel canvas").nth(2)
        assert pixels(aligned) != before
        assert pixels(film.locator(".panel canvas").nth(1)) == sft, "sft does not depend on beta"
        assert "beta 0.5" in film.locator("figcaption").inner_text() != caption
        plane = figure(tab.page, "plane")
        assert "beta 0.5" in plane.locator("figcaption").inner_text()
        assert plane.get_by_role("slider").input_value() == "6"


def test_the_densities_shown_are_those_of_the_mixture(open_tab: Any, report: Path) -> None:
    """The panel of p_star is darkest at its heavy modes, paler at the rare one, blank in the middle."""
    with open_tab(report) as tab:
        canvas = figure(tab.page, "exhibits").locator(".panel canvas").first
        shades = canvas.evaluate(
            """c => [[-1, -1], [1, 1], [0, 0]].map(([x, y]) => {
                const at = (v) => Math.round((v + 1.6) / 3.2 * c.width);
                const copy = new OffscreenCanvas(c.width, c.width).getContext('2d', {willReadFrequently: true});
                copy.drawImage(c, 0, 0);
                const [r, g, b] = copy.getImageData(at(x), c.width - at(y), 1, 1).data;
                return r + g + b;
            })"""
        )
        assert shades[0] < shades[1] < shades[2]
        assert shades[2] > 3 * 250


def test_an_algorithm_without_beta_switches_the_slider_off(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        film = figure(tab.page, "exhibits")
        film.get_by_label("algorithm").select_option(label="best-of-n")
        assert film.get_by_role("slider").is_disabled()
        assert "beta" not in film.locator("figcaption").inner_text()
        assert film.locator(".panel canvas").count() == 8, "its cells stand for every beta"


def test_audits_are_drawn_by_verdict_and_say_where_there_are_none(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        part = figure(tab.page, "audited")
        assert {"go", "no-go", "insufficient data"} >= set(part.locator(".legendtext").all_text_contents()) != set()
        assert re.search(r"mean distance \d\.\d{3} in reward", part.locator("figcaption").inner_text())
        part.get_by_text("The numbers behind this figure").click()
        part.locator("details td:nth-child(4)").first.wait_for()
        verdicts = set(part.locator("details td:nth-child(4)").all_inner_texts())
        assert {"go", "no-go"} <= verdicts
        part.get_by_label("algorithm").select_option(label="best-of-n")
        assert part.locator(".plot").inner_text() == "The audit has no numbers for best-of-n here."
        part.get_by_label("algorithm").select_option(label="grpo")
        part.locator(".plot .main-svg").first.wait_for(state="attached")


def test_hover_shows_the_numbers_of_a_point(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        heat = figure(tab.page, "heatmap")
        heat.locator(".nsewdrag").hover()
        label = heat.locator(".hoverlayer .hovertext")
        label.wait_for(state="attached")
        assert re.search(r"beta 0\.\d+.*reward: [+−]?\d\.\d{3} \[.*seeds won", label.text_content(), re.DOTALL)


def test_choosing_a_measure_redraws_the_map(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        heat = figure(tab.page, "heatmap")
        before = heat.locator(".infolayer").text_content()
        heat.get_by_label("measure").select_option(label="target precision")
        assert heat.locator(".infolayer").text_content() != before
        assert "target precision (nats)" in heat.locator("figcaption").inner_text()


def test_the_theme_follows_the_system_and_the_button(open_tab: Any, report: Path) -> None:
    ink = "getComputedStyle(document.body).color"
    with open_tab(report, scheme="dark") as tab:
        film = figure(tab.page, "exhibits")
        dark, dark_panel = tab.page.evaluate(ink), pixels(film.locator("canvas").first)
        button = tab.page.get_by_role("button", name="Switch to the light theme")
        button.click()
        assert tab.page.evaluate(ink) != dark
        tab.page.get_by_role("button", name="Switch to the dark theme").wait_for()
        panel = figure(tab.page, "exhibits").locator("canvas").first
        for _ in range(50):  # it is drawn anew when the browser gets to it
            if pixels(panel) != dark_panel:
                break
            tab.page.wait_for_timeout(100)
        assert pixels(panel) != dark_panel
        tab.page.reload()
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "light", "the choice is remembered"


def test_the_keyboard_reaches_everything_in_reading_order(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        page = tab.page
        seen = []
        for _ in range(160):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate(
                    """() => {
                        const e = document.activeElement;
                        const y = e.getBoundingClientRect().top + scrollY;
                        const part = e.closest('section, nav, header');
                        return [e.tagName, e.textContent.trim().slice(0, 24), part ? part.id || part.tagName : '', y];
                    }"""
                )
            )
            if seen[-1][1].startswith("Digests"):
                break
        assert seen[0][1] == "Skip to the verdict"
        assert seen[1][2] == "HEADER" and seen[2][2] == "NAV"
        parts = list(dict.fromkeys(s[2] for s in seen if s[2] not in ("", "HEADER", "NAV")))
        assert parts == page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
        tags = {s[0] for s in seen}
        assert {"A", "BUTTON", "SELECT", "INPUT", "SUMMARY"} <= tags


def test_every_control_has_a_name(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        for name in FIGURES:
            figure(tab.page, name)
        unnamed = tab.page.evaluate(
            """[...document.querySelectorAll('select, input, button')]
                .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel)
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert unnamed == []
        silent = tab.page.evaluate(
            "[...document.querySelectorAll('[role=img]')].filter(e => !e.ariaLabel).map(e => e.className)"
        )
        assert silent == []


def test_behind_every_figure_stands_its_table(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        for name in FIGURES:
            found = figure(tab.page, name)
            found.locator("details.data > summary").click()
            rows = found.locator("details.data tbody tr")
            rows.first.wait_for()
            columns = found.locator("details.data thead th").count()
            assert rows.count() >= 2
            assert rows.first.locator("th, td").count() == columns


def test_a_table_can_be_saved(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        found = figure(tab.page, "heatmap")
        found.locator("details.data > summary").click()
        with tab.page.expect_download() as download:
            found.get_by_role("button", name="Save as CSV").click()
        text = Path(download.value.path()).read_text()
        assert text.startswith("algorithm,beta,difference,low,high")
        assert len(text.splitlines()) == 1 + found.locator("details.data tbody tr").count()
        with tab.page.expect_download() as download:
            found.get_by_role("button", name="Save the figure as SVG").click()
        assert Path(download.value.path()).read_text().startswith("<svg")
        tab.requests.clear()  # what the reader saved, from the page's own memory


def test_claims_are_sorted_and_filtered(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        part = tab.page.locator("#claims-table")
        part.scroll_into_view_if_needed()
        status = part.get_by_role("status")
        everything = int(re.search(r"of (\d+) lines", status.inner_text()).group(1))  # type: ignore[union-attr]
        part.get_by_label("verdict").select_option(value="reversed")
        fewer = int(re.search(r"of (\d+) lines", status.inner_text()).group(1))  # type: ignore[union-attr]
        assert 0 < fewer < everything
        assert set(part.locator(".chip").all_inner_texts()) == {"reversed"}
        part.get_by_role("button", name="effect").press("Enter")  # figures above may still move what a mouse would hit
        assert part.locator("th[aria-sort=ascending]").inner_text().startswith("effect")
        part.get_by_label("verdict").select_option(value="")
        part.get_by_label("claim", exact=True).select_option(value="higher-reward")
        part.get_by_role("button", name="effect").press("Enter")
        effects = [float(t.split(" ")[0].replace("−", "-")) for t in part.locator("td:nth-child(4)").all_inner_texts()]
        assert effects == sorted(effects, reverse=True) and len(effects) > 5
        assert tab.page.evaluate("document.activeElement.dataset.sort") == "estimate", "sorting keeps the focus"


def test_without_scripts_the_verdict_still_stands(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("h1").inner_text().startswith("Aligning first ended with")
    assert page.locator("#verdict table.key tbody tr").count() == 4
    assert page.locator("#audited table.key tbody tr").count() == 4
    assert "static versions are in the folder figures" in page.locator("[data-figure=plane]").inner_text()
    context.close()


def test_it_prints_with_every_figure_drawn(open_tab: Any, report: Path) -> None:
    with open_tab(report) as tab:
        tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.page.locator(".plot .main-svg").count() >= 6
        tab.page.emulate_media(media="print")
        assert not tab.page.locator("nav").is_visible()
        assert not tab.page.locator(".controls").first.is_visible()


def test_reduced_motion_is_respected(browser: Any, report: Path) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    context.close()
