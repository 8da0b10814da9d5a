from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from plotly.offline import get_plotlyjs

from alignfirst.errors import StoreError
from alignfirst.report import build, html, offline_page
from alignfirst.report.html import strip
from alignfirst.report.offline_page import embedded, script
from alignfirst.report.page_sections import sections_of
from alignfirst.report.run_files import load
from alignfirst.report.sentences.order_verdict import TrapWindow, verdict


class Page(HTMLParser):
    """Elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self._in_script:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def policy(self) -> str:
        return next(a["content"] or "" for t, a in self.elements if a.get("http-equiv") == "Content-Security-Policy")


@pytest.fixture(scope="module")
def text(built: Path) -> str:
    return (built / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_is_one_file_of_at_most_8_mb(text: str) -> None:
    assert 4_000_000 < len(text.encode()) <= 8_000_000
    assert text.count("plotly.js v") == 1


def test_the_policy_allows_exactly_the_scripts_that_are_there(page: Page) -> None:
    policy = page.policy()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "style-src 'unsafe-inline'" in policy and "img-src data:" in policy
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    found = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in page.scripts if kind is None
    ]  # fmt: skip
    assert sorted(hashes) == sorted(found) and len(found) == 3


def test_nothing_on_the_page_points_outside_it(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "img", "form", "base"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "action", "srcset"}:
                assert (value or "").startswith("#"), (tag, value)


def test_every_link_leads_to_a_section(page: Page) -> None:
    ids = {a["id"] for _, a in page.elements if "id" in a}
    links = [(a["href"] or "")[1:] for t, a in page.elements if t == "a"]
    assert len(links) >= 10 and set(links) <= ids


def test_every_figure_has_a_place_for_its_table(page: Page, built: Path) -> None:
    figures = [a["data-figure"] for t, a in page.elements if t == "figure"]
    assert figures == [figure for section in sections_of(load(built)) for figure in section.figures]
    assert {"exhibits", "heatmap", "audited"} <= set(figures)
    assert sum(a.get("class") == "data" for t, a in page.elements if t == "details") >= len(figures)


def test_the_payload_is_inert_json(page: Page) -> None:
    (payload,) = (text for kind, text in page.scripts if kind == "application/json")
    assert not set("<>&\u2028\u2029") & set(payload)
    assert json.loads(payload)["study"]["name"] == "mog"


def test_the_verdict_stands_on_the_page_without_a_script(built: Path, text: str) -> None:
    run = load(built)
    body = text[text.index("<main>") : text.index("</main>")]
    found = verdict(run)
    assert found.headline in body and all(t.value in body for t in found.headline_numbers)
    assert run.manifest["command"] in body and run.manifest["plan_digest"] in body
    assert "learning_rate: 0.02" in body
    for row in found.key_rows:
        assert f'class="number {row.lead}">{row.difference}<' in body


def test_the_same_run_gives_the_same_page(built: Path, text: str) -> None:
    before = {p.name: p.read_bytes() for p in [built / "summary.md", *(built / "figures").iterdir()]}
    build(built)
    assert (built / "report.html").read_text() == text
    assert {p.name: p.read_bytes() for p in [built / "summary.md", *(built / "figures").iterdir()]} == before


@pytest.mark.parametrize("text", ["</script><script>1", "<!--<script>", "\u2028\u2029&amp;", "<SCRIPT>"])
def test_embedded_text_survives_and_cannot_close_its_element(text: str) -> None:
    assert "<" not in embedded([text])
    assert json.loads(embedded([text])) == [text]


def test_a_script_is_hashed_as_a_browser_parses_it() -> None:
    s = script("a\r\nb = '</script>' + '<!--'")
    assert s.text == "a\nb = '<\\/script>' + '<\\!--'"
    assert s.source == f"'sha256-{base64.b64encode(hashlib.sha256(s.text.encode()).digest()).decode()}'"
    assert script(get_plotlyjs()).text == get_plotlyjs(), "plotly needs no repair, else its strings would change"


def window(low: float | None, high: float | None, betas: list[float]) -> TrapWindow:
    shares = [(b, 0.5) for b in betas]
    return TrapWindow("grpo", "", shares, "", low, high, 20, "")


def test_a_window_is_drawn_where_its_betas_are() -> None:
    found = strip(window(0.1, 0.4, [0.1, 0.2, 0.4]))
    assert [d["at"] for d in found["dots"]] == pytest.approx([100 / 6, 50, 500 / 6], abs=0.01)
    assert found["band"]["left"] == pytest.approx(100 / 6, abs=0.01)
    assert found["band"]["width"] == pytest.approx(400 / 6, abs=0.02)
    half = strip(window(0.2, 0.2 * 2**0.5, [0.1, 0.2, 0.4]))["band"]
    assert (half["left"], half["width"]) == pytest.approx((50, 100 / 6), abs=0.02)
    assert strip(window(0.3, 0.2, [0.1, 0.2]))["band"] is None
    assert strip(window(None, None, [0.1]))["band"] is None
    assert strip(window(0.05, 0.2, [0.1]))["band"] == {"left": 0.0, "width": 100.0}
    assert strip(window(0.2, 0.3, [0.1]))["band"] is None, "beyond the study's only beta"
    assert strip(window(2.0, 3.0, [0.1, 0.2]))["band"] is None


def test_a_page_that_cannot_fit_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_page, "MOST_BYTES", 4_900_000)
    run = load(built)
    with pytest.raises(StoreError, match="even in its thinnest form"):
        html.page(run, verdict(run))


def test_a_thinned_page_says_what_it_leaves_out(built: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = len(text.encode()) - 50_000
    monkeypatch.setattr(offline_page, "MOST_BYTES", most)
    run = load(built)
    thin = html.page(run, verdict(run))
    assert len(thin.encode()) <= most
    assert "it leaves out exhibits of all but one seed" in thin


def test_hostile_text_stays_text(synthetic: ModuleType, tmp_path: Path) -> None:
    bad = '<img src=x onerror="alert(1)">{{7*7}}</script><script>alert(2)</script>\u202e'
    spec = synthetic.Spec(
        name=bad, preset=bad, algorithms=("grpo", bad), betas=(0.1,), seeds=2, command=bad, note=bad, status=bad,
        vary={bad: [bad, "b"]}, failures={("align-distil", bad, 0.1, 0): bad}, exhibits_kind=bad,
    )  # fmt: skip
    found = Page(build(synthetic.write(tmp_path / "run", spec)).read_text())
    assert not [t for t, _ in found.elements if t == "img"]
    assert sum(t == "script" for t, _ in found.elements) == 4
    assert not [n for _, a in found.elements for n in a if n.startswith("on")]
