"""Forty payloads wherever a study or an audit shows text of others: the page shows them, and does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ledger import Count
from payloads import PAYLOADS

from alignfirst.report import build, build_audit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
Counter = Callable[[str], Count]
STRANGE = (
    "img:not([src^='data:']), iframe, object, embed, math, base, form, video, template, link[rel=stylesheet],"
    "a[href^='javascript'], a[href^='data'], main style, meta[http-equiv=refresh], title ~ title"
)
CHOOSE = """() => {
    for (const details of document.querySelectorAll('details')) details.open = true;
    for (const select of document.querySelectorAll('select')) {
        for (const option of [...select.options].slice(0, 50)) {
            select.value = option.value;
            select.dispatchEvent(new Event('change'));
        }
    }
}"""


def check_page(tab: Any, *texts: str) -> None:
    """Everything is drawn, opened and chosen; what a payload could do would show in one of these."""
    page = tab.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for node in page.locator("[data-figure]").all():
        node.scroll_into_view_if_needed()
    page.evaluate(CHOOSE)
    page.wait_for_timeout(300)
    assert page.evaluate("window.__pwned") is None
    assert page.locator(STRANGE).count() == 0
    names = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert page.evaluate(f"{names}.filter(n => n.startsWith('on'))") == []
    shown = page.evaluate("document.body.textContent")
    assert all(text in shown for text in texts), "it is not on the page: this tests nothing"


def test_a_study(open_tab: Any, synthetic: ModuleType, tmp_path: Path, count: Counter) -> None:
    """Payloads in names, algorithms, recipes, varied keys and values, errors, commands and configs of a study are shown
    as text: nothing runs, nothing is asked for, no element or handler of theirs exists."""
    failures = {("align-distil", a, 0.1, 0): s for a, s in zip(PAYLOADS, PAYLOADS, strict=True)}
    spec = synthetic.Spec(
        name=PAYLOADS[20], preset=PAYLOADS[4], status=PAYLOADS[0], command=" ".join(PAYLOADS), note="\n".join(PAYLOADS),
        algorithms=PAYLOADS, betas=(0.1, 0.3), seeds=5, recipes=("align-distil", "distil-align", PAYLOADS[6]),
        failures=failures, vary={PAYLOADS[8]: [PAYLOADS[1], PAYLOADS[10]]},
    )  # fmt: skip
    page = Path(build(synthetic.write(tmp_path / "run", spec)))
    with count("markup: study page").trials(len(PAYLOADS)), open_tab(page) as tab:
        check_page(tab, *PAYLOADS[:2], *PAYLOADS[4:12])


def test_texts(open_tab: Any, synthetic: ModuleType, of_text: ModuleType, tmp_path: Path, count: Counter) -> None:
    """Payloads in texts that models wrote, in prompts and in names of behaviours are shown as text."""
    edit = of_text.TextSpec(texts=PAYLOADS, prompts=PAYLOADS[:3], behaviours=PAYLOADS[3:6])
    spec = synthetic.Spec(name="grammar", seeds=5, algorithms=("grpo",), betas=(0.1,))
    page = Path(build(synthetic.write(tmp_path / "run", spec, edit)))
    with count("markup: texts of models").trials(len(PAYLOADS)), open_tab(page) as tab:
        check_page(tab, PAYLOADS[0], *PAYLOADS[4:6])


def test_an_audit(open_tab: Any, audits: ModuleType, tmp_path: Path, count: Counter) -> None:
    """Payloads in answers, prompts, tokens, notes and the name of the model of an audit are shown as text."""
    random = np.random.default_rng(0)

    def change(plain: dict[str, Any]) -> None:
        plain["notes"] = list(PAYLOADS)
        plain["about"] |= {f"about {s}": s for s in PAYLOADS}

    rows = audits.samples(random, 300) + audits.pairs(random, 2 * len(PAYLOADS), texts=PAYLOADS)
    audits.write(tmp_path, rows, tokens=PAYLOADS, title=PAYLOADS[20], prompt=PAYLOADS[1], change=change)
    page = Path(build_audit(tmp_path))
    with count("markup: audit page").trials(len(PAYLOADS)), open_tab(page) as tab:
        check_page(tab, *PAYLOADS[:2], *PAYLOADS[4:12])
