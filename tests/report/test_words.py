from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.report.sentences import words


def test_hidden_and_reordering_characters_are_written_out() -> None:
    assert words.visible("a\u202eb\u2066c\u200bd\x00e\ufefff") == "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200B⟩d⟨U+0000⟩e⟨U+FEFF⟩f"
    assert words.visible("line\nline\ttab\r\nend") == "line\nline\ttab\nend"
    assert words.visible("Ünï 中文 🙂") == "Ünï 中文 🙂"


@given(st.text())
def test_visible_text_is_stable_and_encodes(text: str) -> None:
    once = words.visible(text)
    assert words.visible(once) == once
    assert (once.encode() and True) or text == ""


JSON_LIKE = st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))


@given(JSON_LIKE)
def test_shown_values_are_finite(value: object) -> None:
    def check(x: object) -> None:
        if isinstance(x, dict):
            for k, v in x.items():
                assert words.visible(k) == k
                check(v)
        elif isinstance(x, list):
            for v in x:
                check(v)
        elif isinstance(x, float):
            assert math.isfinite(x)
        elif isinstance(x, str):
            assert words.visible(x) == x

    check(words.shown(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.0889, "0.0889"), (0.2049, "0.205"), (12.34, "12.3"), (-3.0, "−3.00"), (2e-7, "2.00e−07"),
        (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_for_reading(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "+0.500"), (-0.5, "−0.500"), (0.0, "0.000"), (-0.0001, "0.000"), (0.0001, "0.000"), (None, "–")],
)
def test_signed_numbers_have_no_signed_zero(value: float | None, text: str) -> None:
    assert words.signed(value) == text


def test_betas_are_listed_as_a_reader_would() -> None:
    grid = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]
    assert words.runs_of([0.1, 0.15, 0.2], grid) == "0.1 to 0.2"
    assert words.runs_of([0.1, 0.15], grid) == "0.1 and 0.15"
    assert words.runs_of([0.5, 0.02, 0.1, 0.05], grid) == "0.02 to 0.1 and 0.5"


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(2, 6))
def test_rounding_keeps_the_digits_that_it_promises(value: float, digits: int) -> None:
    assert words.rounded(value, digits) == pytest.approx(value, rel=0.5 * 10 ** (1 - digits) * 1.001, abs=5e-324)
