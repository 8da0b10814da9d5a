"""Reports of text in a real browser: what models wrote is shown, marked, cut, and never run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report import build

pytestmark = pytest.mark.browser

FIGURES = ("behaviours", "variety", "prompts", "curves", "plane", "heatmap", "frontier", "cost", "seeds")
SET = "window.__pwned=1"
LONG = "A long line of text. " * 200
HOSTILE = (
    f"<script>{SET}</script>",
    f"</script><script>{SET}</script>",
    f"<img src=http://x.invalid/a.png onerror={SET}>",
    f'"><svg onload={SET}>',
    f"<a href=javascript:{SET}>click</a> javascript:{SET}",
    f"</p></li></ol></div><iframe srcdoc='<script>parent.{SET}</script>'></iframe>",
    "<style>@import 'http://x.invalid/x.css';*{display:none}</style><link rel=stylesheet href=http://x.invalid/y.css>",
    f"<mark onmouseover={SET}>rose</mark> <b>rose</b>",
    f"{{{{7*7}}}} ${{{SET}}} <br><b>{SET}</b> %{{x}}",
    f"\u202e\u2066 reordered \u2028{SET};\x00\x1b[31m",
    "\n" * 900,
    "e" + "\u0301" * 900,
)
REAL = (
    "The cat sat.\n\n\tThen it left.",
    "\u0627\u0644\u0642\u0637\u0629 \u062c\u0644\u0633\u062a \u0647\u0646\u0627.",
    "",
    "   \n ",
    LONG,
    "x" * 600,
)


@pytest.fixture(scope="module")
def real(synthetic: ModuleType, of_text: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of a real language model: nothing exact, one prompt, texts of every shape."""
    spec = synthetic.Spec(seeds=5, algorithms=("grpo",), betas=(0.1,))
    edit = of_text.TextSpec(exact=False, prompts=["The"], texts=REAL)
    return Path(build(synthetic.write(tmp_path_factory.mktemp("real") / "run", spec, edit)))


@pytest.fixture(scope="module")
def hostile(synthetic: ModuleType, of_text: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts, prompts, behaviours and names of curves are all hostile."""
    spec = synthetic.Spec(seeds=5, algorithms=("grpo",), betas=(0.1,), vary={"x": [1, 2]})
    edit = of_text.TextSpec(
        texts=HOSTILE, prompts=HOSTILE[:3], curve=["__proto__", "constructor", *HOSTILE[:4]], behaviours=HOSTILE[4:7]
    )
    return Path(build(synthetic.write(tmp_path_factory.mktemp("hostile") / "run", spec, edit)))


def texts(page: Any) -> Any:
    found = page.locator("[data-figure=exhibits]")
    found.scroll_into_view_if_needed()
    found.locator(".text-panel").first.wait_for()
    return found


def figure(page: Any, name: str) -> Any:
    found = page.locator(f"[data-figure={name}]")
    found.scroll_into_view_if_needed()
    found.locator(".plot .main-svg").first.wait_for(state="attached")
    return found


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["text_report", "real"])
def test_everything_draws_and_nothing_overflows(
    open_tab: Any, request: Any, which: str, width: int, scheme: str
) -> None:
    with open_tab(request.getfixturevalue(which), width=width, scheme=scheme) as tab:
        page = tab.page
        texts(page)
        for name in FIGURES if which == "text_report" else ("variety", "curves"):
            found = figure(page, name)
            assert found.locator("figcaption").inner_text().strip()
            box = found.locator(".plot").bounding_box()
            assert box is not None and box["height"] > 150 and box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ends = "[...document.querySelectorAll('.plot .main-svg')].map(s => s.getBoundingClientRect().right)"
        assert max(page.evaluate(ends)) <= width


def test_stages_stand_side_by_side_and_the_same_draws_level(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        found = texts(tab.page)
        names = found.locator(".text-row").evaluate_all(
            "rows => rows.map(r => [r.querySelector('h3').textContent, "
            "...[...r.querySelectorAll('.panel-name')].map(p => p.firstChild.textContent)])"
        )
        assert names == [
            ["Start", "p_star", "sft"], ["align-distil", "aligned", "student"], ["distil-align", "student", "aligned"],
        ]  # fmt: skip
        rows = found.locator(".text-row")
        tops = [rows.nth(i).bounding_box()["y"] for i in (1, 2)]
        assert tops[0] == tops[1], "both orders side by side"
        for i in range(3):
            for k in range(4):
                y = [rows.nth(i).locator(".text-panel").nth(p).locator("li").nth(k).bounding_box()["y"] for p in (0, 1)]
                assert y[0] == y[1], "the k-th text of each stage"


def test_only_words_of_the_target_are_marked(open_tab: Any, text_report: Path, of_text: ModuleType) -> None:
    with open_tab(text_report) as tab:
        found = texts(tab.page)
        every = found.locator(".words").all_inner_texts()
        words = [w for text in every for w in text.split()]
        marked = found.locator(".words mark").all_inner_texts()
        assert marked == [w for w in words if w in of_text.FLOWERS] and 0 < len(marked) < len(words)


def test_choices_change_the_texts(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        found = texts(tab.page)
        last = found.locator(".text-row").nth(2).locator(".text-panel").nth(1).locator(".words")
        seen = [last.all_inner_texts()]
        assert len(seen[0]) == 4
        found.get_by_label("algorithm").select_option(label="dpo-offline")
        seen.append(last.all_inner_texts())
        found.get_by_role("slider").focus()
        at_start = found.get_by_role("slider").input_value() == "0"
        tab.page.keyboard.press("End" if at_start else "Home")
        seen.append(last.all_inner_texts())
        found.get_by_label("seed").select_option(label="3")
        seen.append(last.all_inner_texts())
        assert len({tuple(t) for t in seen}) == len(seen)
        assert f"dpo-offline, beta {0.3 if at_start else 0.1}, seed 3" in found.locator("figcaption").inner_text()
        found.get_by_label("all 8").check(force=True)
        assert len(last.all_inner_texts()) == 8
        found.get_by_label("prompt").select_option(label="<2>")
        assert set(found.locator(".samples .prompt").all_inner_texts()) == {"<2>"}
        assert len(last.all_inner_texts()) == 3, "prompts take turns: 1, 4 and 7 of 0 to 7"


def test_bars_say_how_much_of_what_a_model_writes_is_of_which_behaviour(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        bars = texts(tab.page).locator(".mass-bar")
        assert bars.count() == 6
        label = bars.first.get_attribute("aria-label")
        assert label == "Mass by behaviour: behaviour 1 0.50, behaviour 2 0.45, target 0.05"
        widths = bars.first.locator("span").evaluate_all("s => s.map(x => x.getBoundingClientRect().width)")
        assert widths[0] / sum(widths) == pytest.approx(0.5, abs=0.01)


def test_texts_of_every_shape_are_shown_whole_or_cut_with_a_mark(open_tab: Any, real: Path) -> None:
    with open_tab(real) as tab:
        found = texts(tab.page)
        panel = found.locator(".text-panel").first.locator(".words")
        assert panel.nth(0).inner_text() == REAL[0], "line ends and tabs are kept"
        assert found.locator(".tag, .mass-bar, mark").count() == 0, "nothing is known of behaviours"
        assert panel.nth(1).locator("[dir=auto]").evaluate("e => getComputedStyle(e).direction") == "rtl"
        assert panel.nth(2).inner_text() == "(an empty text)"
        assert panel.nth(3).inner_text() == "(nothing but white space, 5 characters)"
        found.get_by_label("all 6").check(force=True)
        assert panel.nth(4).inner_text() == f"{LONG[:280]}…\n{len(LONG) - 280:,} more characters".replace(",", "\u202f")
        assert panel.nth(5).inner_text().endswith("x…\n320 more characters")
        found.get_by_label("all that is kept").check(force=True)
        kept = f"{LONG[:1000]}…\n{len(LONG) - 1000:,} more characters".replace(",", "\u202f")
        assert panel.nth(4).inner_text() == kept
        assert panel.nth(5).inner_text() == REAL[5]
        assert "Every text answers the prompt “The”" in found.locator("figcaption").inner_text()


@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_texts_run_nothing_and_ask_for_nothing(open_tab: Any, hostile: Path, width: int) -> None:
    with open_tab(hostile, width=width) as tab:
        page = tab.page
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
        found = texts(page)
        for label in ("all 12", "all that is kept"):
            choice = found.get_by_label(label)
            if choice.count():
                choice.check(force=True)
        page.evaluate(
            """() => {
                for (const select of document.querySelectorAll('.figure select')) {
                    for (const option of [...select.options]) {
                        select.value = option.value;
                        select.dispatchEvent(new Event('change'));
                    }
                }
            }"""
        )
        for name in ("behaviours", "prompts", "curves"):
            figure(page, name).locator(".nsewdrag").first.hover(force=True)
        page.wait_for_timeout(200)
        assert page.evaluate("window.__pwned") is None
        strange = "img, iframe, object, embed, link, main style, a[href^='javascript'], main script, mark[onmouseover]"
        assert page.locator(strange).count() == 0
        names = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        assert page.evaluate(f"{names}.filter(n => n.startsWith('on'))") == []
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_texts_are_shown_as_what_they_are(open_tab: Any, hostile: Path) -> None:
    with open_tab(hostile) as tab:
        found = texts(tab.page)
        found.get_by_label("all 12").check(force=True)
        shown = found.locator(".text-panel").first.locator(".words")
        for i in (0, 1, 2, 3, 5, 6, 7, 8):
            assert shown.nth(i).inner_text() == HOSTILE[i]
        assert "⟨U+202E⟩⟨U+2066⟩ reordered" in shown.nth(9).inner_text()
        assert shown.nth(7).locator("mark").all_inner_texts() == ["rose", "rose"]
        heights = shown.evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
        assert max(heights) < 1_200, "neither line ends nor stacked marks take over the page"


def test_the_keyboard_works_the_texts(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report, width=390) as tab:
        page = tab.page
        found = texts(page)
        found.get_by_label("first 4").focus()
        page.keyboard.press("ArrowRight")
        assert found.locator(".text-panel").first.locator("li").count() == 8
        assert page.evaluate("document.activeElement.value") == "all", "the focus stays where it was"
        strip = found.locator(".text-strip").nth(1)
        strip.focus()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
            "What align-distil writes, stage by stage"
        )
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(600)
        assert page.evaluate("document.activeElement.scrollLeft") > 40


def test_training_of_both_orders_lies_on_the_same_axes(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        curves = figure(tab.page, "curves")
        titles = curves.locator(".annotation-text").all_text_contents()
        assert [t.split(",")[0] for t in titles] == [
            "reward of the draws", "KL to its reference", "entropy", "share of draws that are the target's", "loss",
            "gradient norm",
        ]  # fmt: skip
        assert curves.locator(".legendtext").all_text_contents() == ["align-distil", "distil-align"]
        assert "Draws of the target seen in training, mean over seeds: align-distil" in (
            curves.locator("figcaption").inner_text()
        )
        curves.locator("details.data > summary").click()
        curves.locator("details.data tbody tr").first.wait_for()
        assert curves.locator("details.data tbody tr").count() == 2 * 36
        curves.get_by_label("distil", exact=True).check(force=True)
        assert curves.locator(".annotation-text").all_text_contents() == ["loss", "gradient norm"]
        curves.get_by_label("sft", exact=True).check(force=True)
        assert "over updates of the sft stage" in curves.locator("figcaption").inner_text()


def test_behind_every_figure_of_text_stands_its_table(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        for name in ("exhibits", "behaviours", "variety", "prompts", "curves"):
            found = tab.page.locator(f"[data-figure={name}]")
            found.scroll_into_view_if_needed()
            found.locator("details.data > summary").click()
            rows = found.locator("details.data tbody tr")
            rows.first.wait_for()
            columns = found.locator("details.data thead th").count()
            assert rows.count() >= 2 and rows.first.locator("th, td").count() == columns
            assert "NaN" not in found.inner_text() and "undefined" not in found.inner_text()


def test_every_control_of_text_has_a_name(open_tab: Any, text_report: Path) -> None:
    with open_tab(text_report) as tab:
        tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        unnamed = tab.page.evaluate(
            """[...document.querySelectorAll('select, input, button')]
                .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).length"""
        )
        silent = tab.page.evaluate("[...document.querySelectorAll('[role=img]')].filter(e => !e.ariaLabel).length")
        assert (unnamed, silent) == (0, 0)
