"""YAML in and out: YAML 1.2 scalars, line numbers, and hostile texts refused at once."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.errors import InputError
from alignfirst.study.config import yaml_io


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers: PyYAML may have been installed without libyaml."""
    if request.param == "python":
        monkeypatch.setattr(yaml_io, "_LOADER", yaml.SafeLoader)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML is installed without libyaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("3", 3),
        ("010", 10),
        ("-.inf", -math.inf),
        ("true", True),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-11-24", "2026-11-24"),
        ("'1'", "1"),
        ('"a\\tb"', "a\tb"),
        ("~", None),
        ("", None),
        ("[1, [2.5, x], {a: b}]", [1, [2.5, "x"], {"a": "b"}]),
    ],
)
def test_scalars_are_yaml_1_2(loader: None, text: str, value: Any) -> None:
    assert yaml_io.loads_value(text) == value
    assert type(yaml_io.loads_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n\tb: 1\n", "f.yaml line 2 must be indented with spaces, got a tab"),
        ("a: 1\nb: 2\na: 3\n", "line 3 must have every key once, got 'a' in line 1 and in line 3"),
        ("x:\n  a: 1\n  a: 1\n", "line 3 must have every key once"),
        ("a: &x 1\nb: *x\n", "line 1 must not use anchors"),
        ("a: *x\n", "must not use anchors (&) or aliases (*)"),
        ("a: !!python/object/apply:os.system [id]\n", "must not use tags"),
        ("a: !!int '3'\n", "must not use tags"),
        ("a: 1\n---\nb: 1\n", "line 2 must hold one document"),
        ("a: [1, 2\nb: 3", "must be valid YAML"),
        ("? [1]\n: 2\n", "must have text as keys"),
        ("a: \0", "must be valid YAML"),
        ("a: \x1b[31m", "must be valid YAML"),
        ("", "must hold a mapping of keys to values, got nothing"),
        ("- 1", "must hold a mapping of keys to values, got a list"),
        ("a: " + "9" * 20, "integers of at most 19 digits"),
        ("a: \ud800", "must be UTF-8"),
    ],
)
def test_refused_with_the_line(loader: None, text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        yaml_io.loads(text, "f.yaml")


def test_bytes_that_are_not_utf_8() -> None:
    with pytest.raises(InputError, match=r"must be UTF-8 text, got byte 0xff in line 2"):
        yaml_io.loads(b"a: 1\nb: \xff\n")
    assert yaml_io.loads(b"\xef\xbb\xbfa: 1\n") == {"a": 1}  # a byte order mark is no fault


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="must be readable"):
            yaml_io.read(path)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(allow_nan=False), st.text(max_size=12),
    st.sampled_from(["1e-5", "yes", "~", "0x1", "1:2", "null", "- a", "a: b", "#", "", " ", "1.", "\t", "é", "'", '"']),
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), st.recursive(LEAVES, lambda x: st.lists(x, max_size=3), max_leaves=6)))
def test_written_and_read_back(data: dict[str, Any]) -> None:
    text = yaml_io.dumps(data)
    assert yaml_io.loads(text) == data if data else text == "{}\n"


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{},&*!|>'\"%@`#? \n\t1.e")), max_size=60))
def test_any_text_is_data_or_an_input_error(text: str) -> None:
    try:
        yaml_io.loads_value(text)
    except InputError as e:
        assert str(e).isprintable()


@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_an_input_error(data: bytes) -> None:
    try:
        yaml_io.loads_value(data)
    except InputError as e:
        assert str(e).isprintable()
