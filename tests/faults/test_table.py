"""The page of the campaign says what the campaign wrote down."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import table
from ledger import Ledger

TESTS = Path(__file__).parents[1]


@pytest.fixture
def whole() -> dict[str, Any]:
    """The ledger of a whole campaign that held."""
    ledger = Ledger()
    for item in table.ITEMS:
        for name, least in item.least.items():
            with ledger.of(name, "tests/x.py::test_x", "It | holds.").trials(least):
                pass
    return ledger.plain()


def test_the_page_is_made_from_the_ledger() -> None:
    counts, text = json.loads(table.LEDGER.read_text()), table.PAGE.read_text()
    assert table.page(text, counts) == text, "run: python tests/faults/table.py"
    known = {name for item in table.ITEMS for name in item.least}
    assert counts.keys() <= known


def test_the_ledger_names_tests_that_are_there() -> None:
    for count in json.loads(table.LEDGER.read_text()).values():
        for test in count["promises"]:
            path, _, function = test.partition("::")
            assert re.search(rf"^def {function}\(", (TESTS.parent / path).read_text(), re.MULTILINE), test


def test_items_have_titles_and_counts_of_their_own() -> None:
    names = [name for item in table.ITEMS for name in item.least]
    assert len(set(names)) == len(names)
    assert len({item.title for item in table.ITEMS}) == len(table.ITEMS)


def test_a_whole_campaign_lacks_nothing(whole: dict[str, Any]) -> None:
    assert list(table.shortcomings(whole)) == []
    assert "| disk full | It \\| holds. `x.py::test_x` | 20 | 20 |" in table.table(whole)


def test_what_is_missing_too_small_lost_or_unknown_is_said(whole: dict[str, Any]) -> None:
    del whole["yaml"]
    whole["disk full"]["tried"] = whole["disk full"]["survived"] = 19
    whole["two at once"]["survived"] -= 1
    whole["new"] = whole["models"]
    assert list(table.shortcomings(whole)) == [
        "2 Two at once: two at once survived 19 of 20",
        "3 Full disks: disk full was tried 19 times, a whole campaign does 20",
        "8 YAML: yaml was not tried",
        "new belongs to no item",
    ]
