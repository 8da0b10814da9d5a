"""The page of an audit in a real browser: it shows, it answers, it keeps to itself, and text of others stays text."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from alignfirst.report import build_audit

sys.path.insert(0, str(Path(__file__).parent))

from audit_figures import figure

pytestmark = pytest.mark.browser

FIGURES = ("tilt", "hits", "coverage", "scatter", "cost", "calibration")
TOKENS = ("Take", " the", " river", " path", "\n\n", "by", " an", " old", " bridge", ".", "<end>")


@pytest.fixture(scope="module")
def audit(audits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with a reward, a teacher, preference rows and their tokens."""
    folder = tmp_path_factory.mktemp("audit") / "whole"
    random = np.random.default_rng(0)
    audits.write(folder, audits.samples(random) + audits.pairs(random, 64), tokens=TOKENS, title="a student")
    return Path(build_audit(folder))


# -- it shows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_draws_and_nothing_overflows(open_tab: Any, audit: Path, width: int, scheme: str) -> None:
    with open_tab(audit, width=width, scheme=scheme) as tab:
        for name in FIGURES:
            found = figure(tab.page, name)
            assert found.locator("figcaption").inner_text().strip()
            box = found.locator(".plot").bounding_box()
            assert box is not None and box["height"] > 150 and box["width"] <= width
        assert tab.page.locator(".worst > li").count() == 10
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        ends = "[...document.querySelectorAll('.plot .main-svg')].map(s => s.getBoundingClientRect().right)"
        assert max(tab.page.evaluate(ends)) <= width


def test_a_plan_chosen_in_one_figure_is_chosen_in_all(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        tilt = figure(tab.page, "tilt")
        plans = tilt.get_by_label("plan", exact=True).locator("option").all_inner_texts()
        assert plans[0].startswith("ppo at beta 0.1: ") and len(plans) == 5
        tilt.get_by_label("plan", exact=True).select_option("2")
        assert tilt.locator("figcaption").inner_text().startswith("reinforce with 150\u202f000 rollouts.")
        hits = figure(tab.page, "hits")
        assert (
            hits.locator("figcaption").inner_text().startswith("reinforce at beta 0.1: 150\u202f000 rollouts (dotted)")
        )
        hits.get_by_label("plan", exact=True).select_option("4")
        assert (
            "No number is predicted for ipo"
            in figure(tab.page, "hits").page.locator("[data-figure=tilt] .plot").inner_text()
        )


def test_the_curve_drawn_is_that_of_the_audit_with_the_planned_beta_on_it(open_tab: Any, audit: Path) -> None:
    plain = json.loads((audit.parent / "audit.json").read_text())
    window = plain["windows"]["ppo"]
    with open_tab(audit) as tab:
        tilt = figure(tab.page, "tilt")
        tilt.get_by_label("plan", exact=True).select_option("0")
        data = tilt.locator(".plot").evaluate("p => p.data.map(t => ({name: t.name, x: t.x, y: t.y}))")
        curve = next(t for t in data if t["name"] == "target mass, 95\u00a0% interval")
        firm = [i for i, y in enumerate(curve["y"]) if y is not None]
        assert firm[-1] == len(window["beta"]) - 1
        assert window["lower_beta"] == pytest.approx(curve["x"][firm[0]], rel=1e-4), "firm where the draws carry it"
        for i in firm:
            assert curve["x"][i] == pytest.approx(window["beta"][i], rel=1e-4)
            assert curve["y"][i] == pytest.approx(window["target_mass"][i], rel=1e-4)
        planned = next(t for t in data if t["name"] == "planned")
        assert planned["x"] == [0.1, 0.3]
        masses = [p["target_mass"]["value"] for p in plain["plans"][:2]]
        assert planned["y"] == pytest.approx(masses, rel=1e-4)
        shapes = tilt.locator(".plot").evaluate("p => p.layout.shapes")
        lines = {s["x0"] for s in shapes if s["type"] == "line" and s["xref"] == "x"}
        assert lines >= {0.1, 0.3}
        boxes = [s for s in shapes if s["type"] == "rect" and s["xref"] == "x"]
        assert any(s["x1"] == pytest.approx(window["upper_beta"]["value"], rel=1e-4) for s in boxes)


def test_rows_are_found_by_words_and_sorted(open_tab: Any, audit: Path) -> None:
    plain = json.loads((audit.parent / "audit.json").read_text())
    every = plain["pairs"]["every"]
    with open_tab(audit) as tab:
        part = tab.page.locator("#rows")
        part.scroll_into_view_if_needed()
        lines = part.locator(".worst h3")
        worst = [f"Line {row['line']}" for row in plain["pairs"]["worst"][:10]]
        assert lines.all_inner_texts() == worst
        part.get_by_role("button", name="Show 50 more").click()
        assert lines.count() == 60
        part.get_by_label("sorted by").select_option(label="margin")
        least = min(every, key=lambda row: row["margin"])
        assert lines.first.inner_text() == f"Line {least['line']}"
        part.get_by_label("words in the row").fill(f"{least['line']}")
        assert lines.first.inner_text() == f"Line {least['line']}"
        part.get_by_label("words in the row").fill("bridge RIVER")
        found = int(re.search(r"of (\d+) rows", part.get_by_role("status").inner_text()).group(1))  # type: ignore[union-attr]
        assert 0 < found < 64
        part.get_by_label("words in the row").fill("no such words anywhere")
        assert part.get_by_role("status").inner_text() == "No row has all of these words."
        assert lines.count() == 0


def test_costly_tokens_are_marked_without_the_space_around_them(open_tab: Any, audit: Path) -> None:
    plain = json.loads((audit.parent / "audit.json").read_text())
    worst = plain["pairs"]["worst"][0]
    with open_tab(audit) as tab:
        row = tab.page.locator(".worst > li").first
        row.scroll_into_view_if_needed()
        marks = row.locator(".answer mark").all_text_contents()
        assert marks and all(m == m.strip() for m in marks)
        tokens = worst["tokens"]
        gaps = np.subtract(tokens["logp_reference"], tokens["logp_teacher"])
        costly = [t.strip() or "↵" for t, gap in zip(TOKENS, gaps, strict=True) if gap < -2]
        assert marks == costly
        shown = row.locator(".answer").text_content()
        assert shown.replace("↵", "") == "".join(TOKENS)
        assert row.locator(".prompt").inner_text() == worst["prompt"]
        listed = row.locator(".tokens mark").all_text_contents()
        assert listed == [t["text"].strip() or "↵" for t in worst["costliest_tokens"]]
        title = row.locator(".answer mark").first.get_attribute("title")
        assert re.fullmatch(r"log q −\d\.\d\d, log p −0\.10, difference −\d\.\d\d", title)


def test_the_means_in_the_legend_are_the_audit_s_own(open_tab: Any, audit: Path) -> None:
    plain = json.loads((audit.parent / "audit.json").read_text())
    with open_tab(audit) as tab:
        cost = figure(tab.page, "cost")
        for label, key in (("whole answer", "cost_"), ("per token", "cost_per_token_")):
            cost.get_by_text(label, exact=True).click()
            texts = cost.locator(".legendtext").all_text_contents()
            means = [plain["pairs"][f"{key}{side}"]["value"] for side in ("chosen", "rejected")]
            shown = [float(t.rsplit(" ", 1)[1].replace("−", "-")) for t in texts]
            assert shown == pytest.approx(means, abs=0.005)
        bars = cost.locator(".plot").evaluate("p => p.data.map(t => t.y.reduce((a, b) => a + b, 0))")
        assert bars == [64, 64], "every row is in a bar"


def test_the_calibration_of_any_algorithm_can_be_seen(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        found = figure(tab.page, "calibration")
        select = found.get_by_label("algorithm", exact=True)
        assert select.evaluate("s => s.selectedOptions[0].text") == "ppo", "that of the quoted plan comes first"
        select.select_option(label="dpo-offline")
        assert found.locator("figcaption").inner_text().startswith("dpo-offline.")


# -- for everybody ----------------------------------------------------------------------------------------------------


def test_the_theme_follows_the_system_and_the_button(open_tab: Any, audit: Path) -> None:
    def colours(page: Any) -> list[str]:
        body = page.evaluate("getComputedStyle(document.body).color")
        tick = figure(page, "tilt").locator(".plot .xtick text").first
        tick.wait_for(state="attached")
        return [body, tick.evaluate("e => e.style.fill")]

    with open_tab(audit, scheme="dark") as tab:
        dark = colours(tab.page)
        tab.page.get_by_role("button", name="Switch to the light theme").click()
        tab.page.get_by_role("button", name="Switch to the dark theme").wait_for()
        light = colours(tab.page)
        assert all(a != b for a, b in zip(dark, light, strict=True))
    with open_tab(audit, scheme="light") as tab:
        assert colours(tab.page) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(open_tab: Any, audit: Path, scheme: str) -> None:
    """WCAG AA, where text stands on one colour: 4.5 to 1; large text 3 to 1."""
    with open_tab(audit, scheme=scheme) as tab:
        figure(tab.page, "cost")
        faint = tab.page.evaluate(
            """() => {
                const rgb = (s) => s.match(/[\\d.]+/g).map(Number);
                const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92
                    : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
                const behind = (e) => {
                    for (; e; e = e.parentElement) {
                        const c = rgb(getComputedStyle(e).backgroundColor);
                        if (c.length < 4 || c[3] > 0) return c;
                    }
                };
                const found = [];
                const parts = 'p, dt, dd, td, th, h1, h2, h3, .chip, .bar span, mark, label, legend, a';
                for (const e of document.querySelectorAll(parts)) {
                    if (!e.textContent.trim() || !e.getClientRects().length) continue;
                    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
                    const {fontSize, fontWeight} = getComputedStyle(e);
                    const large = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24);
                    if ((a + 0.05) / (b + 0.05) >= (large ? 3 : 4.5)) continue;
                    found.push([e.className, e.textContent.slice(0, 30)]);
                }
                return found;
            }"""
        )
        assert faint == []


def test_the_keyboard_reaches_everything_in_reading_order(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        page, seen = tab.page, []
        for _ in range(200):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate(
                    """() => {
                        const e = document.activeElement;
                        const part = e.closest('section, nav, header');
                        return [e.tagName, e.textContent.trim().slice(0, 24), part ? part.id || part.tagName : ''];
                    }"""
                )
            )
            if seen[-1][2] == "calibration" and seen[-1][0] == "SUMMARY":
                break
        assert seen[0][1] == "Skip to the verdict"
        assert seen[1][2] == "HEADER" and seen[2][2] == "NAV"
        parts = list(dict.fromkeys(s[2] for s in seen if s[2] not in ("", "HEADER", "NAV")))
        assert parts == ["verdict", "tilt", "hits", "coverage", "scatter", "cost", "rows", "calibration"]
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
        assert {"A", "BUTTON", "SELECT", "INPUT", "SUMMARY"} <= {s[0] for s in seen}


def test_rows_are_searched_with_the_keyboard_alone(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        page = tab.page
        page.locator("#rows-search").focus()
        page.keyboard.type("stone")
        before = page.locator("#rows [role=status]").inner_text()
        assert "of 64" not in before
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.id") == "rows-sort"
        assert page.locator("#rows-sort").evaluate("s => s.selectedIndex") == 1
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        assert "of 64 rows" in page.locator("#rows [role=status]").inner_text()


def test_everything_has_a_name(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        for name in FIGURES:
            figure(tab.page, name)
        unnamed = tab.page.evaluate(
            """[...document.querySelectorAll('select, input, button')]
                .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel)
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        silent = tab.page.evaluate(
            """[...document.querySelectorAll('[role=img], [role=region]')]
                .filter(e => !e.ariaLabel).map(e => e.className)"""
        )
        assert unnamed == [] and silent == []
        levels = tab.page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels)), "no level of headings is skipped"


def test_behind_every_figure_stands_its_table(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        for name in FIGURES:
            found = figure(tab.page, name)
            found.locator("details.data > summary").click()
            rows = found.locator("details.data tbody tr")
            rows.first.wait_for()
            assert rows.count() >= 2
            assert rows.first.locator("th, td").count() == found.locator("details.data thead th").count()
        with tab.page.expect_download() as download:
            found.get_by_role("button", name="Save as CSV").click()
        assert Path(download.value.path()).read_text().startswith("what,value,low,high")
        tab.requests.clear()  # what the reader saved, from the page's own memory


def test_without_scripts_the_verdict_still_stands(browser: Any, audit: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(audit.as_uri())
    assert page.locator("h1").inner_text().strip() and page.locator("table.plans tbody tr").count() == 5
    assert "numbers are in audit.json" in page.locator("[data-figure=tilt]").inner_text()
    assert "every row is in audit.json" in page.locator("#worst-rows").inner_text()
    context.close()


def test_it_prints_with_every_figure_drawn(open_tab: Any, audit: Path) -> None:
    with open_tab(audit) as tab:
        tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.page.locator(".plot .main-svg").count() >= len(FIGURES)
        tab.page.emulate_media(media="print")
        assert not tab.page.locator("nav").is_visible()
        assert not tab.page.locator(".controls").first.is_visible()
