"""Preference pairs: every format, every reason to drop a row, and any bytes at all."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.data.pairs import LoadedRows, read_pairs
from alignfirst.data.prompts import read_examples, read_prompts
from alignfirst.data.rows import Message, TextRow
from alignfirst.data.tokenise import pieces
from alignfirst.errors import InputError

GOOD = {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "Seven."}
USER = {"role": "user", "content": "Name a colour."}
RED, SEVEN = ({"role": "assistant", "content": text} for text in ("Red.", "Seven."))


def write(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def load(tmp_path: Path, *rows: Any, **options: Any) -> LoadedRows:
    return read_pairs(write(tmp_path / "pairs.jsonl", list(rows)), **options)


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"chosen": "Name a colour. Red.", "rejected": "Name a colour. Seven."},
        {"prompt": [USER], "chosen": [RED], "rejected": [SEVEN]},
        {"chosen": [USER, RED], "rejected": [USER, SEVEN]},
        GOOD | {"confidence": 0.75, "source": "somewhere"},
    ],
    ids=["standard", "standard, implicit", "conversational", "conversational, implicit", "with confidence"],
)
def test_every_format_of_trl_is_read(row: dict[str, Any], tmp_path: Path) -> None:
    [pair] = load(tmp_path, row).rows
    if isinstance(row["chosen"], list):
        assert (pair.prompt, pair.chosen, pair.rejected) == tuple((Message(**m),) for m in (USER, RED, SEVEN))
        assert pair.conversational
    else:
        assert (pair.prompt, pair.chosen.strip(), pair.rejected.strip()) == tuple(GOOD.values())  # type: ignore[union-attr]
        assert not pair.conversational
    assert pair.confidence == row.get("confidence") and pair.line == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"chosen": "\xff\xfe"}', "not UTF-8"),
        (json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
        ([1], "not a JSON object"),
        ({"prompt": "a", "chosen": "b"}, "without rejected"),
        ({"rejected": "b"}, "without chosen"),
        (GOOD | {"chosen": None}, "null chosen"),
        (GOOD | {"prompt": None}, "null prompt"),
        (GOOD | {"rejected": 3}, "rejected neither text nor messages"),
        (GOOD | {"chosen": " \n"}, "empty chosen"),
        (GOOD | {"rejected": ""}, "empty rejected"),
        ({"prompt": [USER], "chosen": [], "rejected": [SEVEN]}, "empty chosen"),
        ({"prompt": [USER], "chosen": [RED | {"content": ""}], "rejected": [SEVEN]}, "empty chosen"),
        (GOOD | {"rejected": "Red."}, "chosen and rejected the same"),
        ({"chosen": "same", "rejected": "same"}, "chosen and rejected the same"),
        (GOOD | {"chosen": [RED]}, "text and messages mixed"),
        ({"chosen": "text", "rejected": [SEVEN]}, "text and messages mixed"),
        ({"prompt": [USER], "chosen": ["Red."], "rejected": [SEVEN]}, "a message without role"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": [RED], "rejected": [SEVEN]},
         "a message whose content is not text"),
        ({"chosen": [USER, RED], "rejected": [USER]}, "empty rejected"),
        ({"chosen": "Red", "rejected": "Red and blue"}, "empty chosen"),
        (GOOD | {"chosen": "\ud800"}, "half a surrogate pair, which is no text"),
        (GOOD | {"chosen": "x" * 101}, "a cell longer than 100 characters"),
        ({"prompt": [USER], "chosen": [RED], "rejected": [SEVEN, USER]}, "rejected does not end with the assistant"),
        (GOOD | {"confidence": 0.4}, "confidence outside 0.5 to 1"),
        (GOOD | {"confidence": True}, "confidence outside 0.5 to 1"),
        (GOOD | {"confidence": float("nan")}, "confidence outside 0.5 to 1"),
        (GOOD | {"confidence": "high"}, "confidence outside 0.5 to 1"),
    ],
)  # fmt: skip
def test_every_reason_to_drop_a_row_is_counted_and_its_line_named(row: Any, reason: str, tmp_path: Path) -> None:
    other = GOOD | {"prompt": "another"}
    found = load(tmp_path, other, row, max_cell=100)
    assert {name: (d.count, d.lines) for name, d in found.counts.dropped.items()} == {reason: (1, [2])}
    assert len(found.rows) == 1 and found.counts.total == 2
    assert reason in found.summary() and "line 2" in found.summary()
    assert found.plain()["dropped"] == {reason: {"count": 1, "lines": [2]}}


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD, GOOD, GOOD | {"source": "elsewhere"})
    assert len(found.rows) == 1 and found.counts.dropped["repeats an earlier row"].lines == [2, 3]


def test_contradicting_labels_take_all_their_rows_with_them(tmp_path: Path) -> None:
    swapped = GOOD | {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}
    other = GOOD | {"prompt": "another"}
    found = load(tmp_path, GOOD, other, swapped, GOOD)
    assert [pair.line for pair in found.rows] == [2]
    [(reason, dropped)] = found.counts.dropped.items()
    assert reason.startswith("contradicting") and dropped.lines == [1, 3, 4]


def test_the_lines_of_the_first_five_are_named(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD, *[b"{"] * 9)
    assert found.counts.dropped["not JSON"].count == 9 and found.counts.dropped["not JSON"].lines == [2, 3, 4, 5, 6]


def test_blank_lines_are_no_rows_and_a_limit_counts_rows(tmp_path: Path) -> None:
    rows = [b"", *(GOOD | {"prompt": str(n)} for n in range(5))]
    found = load(tmp_path, *rows, limit=3)
    assert found.counts.total == 3 and [pair.line for pair in found.rows] == [2, 3, 4]


def test_a_gzipped_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert len(read_pairs(path).rows) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [([], "at least one pair"), ([b"{", {"chosen": "a"}], "at least one row must be usable.*0 of 2 rows kept")],
)
def test_a_file_without_a_usable_row_is_refused(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load(tmp_path, *rows)


def test_no_file_and_a_bad_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data must be there"):
        read_pairs(tmp_path / "none")
    with pytest.raises(InputError, match="at least 1"):
        load(tmp_path, GOOD, limit=0)


@pytest.mark.parametrize("form", ["parquet", "folder"])
def test_tables_and_data_sets_are_read_as_json_lines_are(form: str, tmp_path: Path) -> None:
    """The same rows and reasons as a study that trains on them finds."""
    rows = [GOOD, GOOD | {"prompt": "another"}, GOOD | {"chosen": " "}]
    plain = load(tmp_path, *rows)
    if form == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
        assert read_pairs(tmp_path / "pairs.parquet") == plain
    else:
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "folder"))
        assert read_pairs(tmp_path / "folder") == plain


def test_json_lines_need_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The light install has none of them; what needs one says so."""
    for name in ("datasets", "pyarrow", "pyarrow.parquet", "torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(load(tmp_path, GOOD).rows) == 1
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"needs pyarrow.*pip install pyarrow"):
        read_pairs(tmp_path / "pairs.parquet")


def test_prompts_are_kept_or_dropped_for_a_counted_reason(tmp_path: Path) -> None:
    """As rows of pairs are: a bad line stops none of the others."""
    rows = [{"prompt": "a", "note": 1}, {"prompt": [USER]}, {"prompt": ""}, {"prompt": 3}, {"prompt": "a"}, b"{", {}]
    found = read_prompts(write(tmp_path / "prompts.jsonl", rows))
    assert found.rows == (TextRow(1, "a"), TextRow(2, (Message(**USER),)))
    assert {reason: counted.lines for reason, counted in found.counts.dropped.items()} == {
        "empty prompt": [3], "prompt neither text nor messages": [4], "repeats an earlier row": [5],
        "not JSON": [6], "without prompt": [7],
    }  # fmt: skip
    assert len(read_prompts(tmp_path / "prompts.jsonl", limit=1)) == 1


def test_examples_are_prompts_with_a_response_or_a_chosen_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "response": "b"}, {"prompt": "a", "chosen": "c", "rejected": "d"},
        {"prompt": "a", "response": None, "chosen": "e"}, {"prompt": "a"}, {"prompt": "a", "response": [RED]},
        {"prompt": "a", "response": " "}, {"prompt": [USER], "response": [USER]}, {"prompt": "a", "response": "b"},
    ]  # fmt: skip
    found = read_examples(write(tmp_path / "wanted.jsonl", rows))
    assert [(row.line, row.prompt, row.chosen, row.rejected) for row in found.rows] == [
        (1, "a", "b", ""), (2, "a", "c", ""), (3, "a", "e", ""),
        (5, (Message("user", "a"),), (Message("assistant", "Red."),), ""),
    ]  # fmt: skip
    assert {reason: counted.lines for reason, counted in found.counts.dropped.items()} == {
        "without response": [4], "empty response": [6],
        "response does not end with the assistant": [7], "repeats an earlier row": [8],
    }  # fmt: skip


def trl_extract_prompt(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """TRL 1.16's `extract_prompt`, letter for letter."""
    for idx in range(min(len(chosen), len(rejected))):
        if chosen[idx] != rejected[idx]:
            if chosen[idx - 1] == " ":
                idx -= 1
            break
    return chosen[:idx], chosen[idx:], rejected[idx:]


@given(st.text("ab ", max_size=6), st.text("ab ", max_size=5), st.text("ab ", max_size=5))
def test_an_implicit_prompt_is_cut_where_trl_cuts_it(prefix: str, a: str, b: str) -> None:
    chosen, rejected = prefix + a, prefix + b
    differs = next((i for i, (x, y) in enumerate(zip(chosen, rejected, strict=False)) if x != y), None)
    if differs in (None, 0):  # one begins the other: TRL cuts before what they share; nothing shared: it looks at [-1]
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "pairs.jsonl", [{"chosen": chosen, "rejected": rejected}])
        expected = trl_extract_prompt(chosen, rejected)
        try:
            [pair] = read_pairs(path).rows
        except InputError:
            assert not expected[1].strip() or not expected[2].strip()
        else:
            assert (pair.prompt, pair.chosen, pair.rejected) == expected


def test_a_prompt_that_ends_inside_a_word_is_noted(tmp_path: Path) -> None:
    found = load(tmp_path, {"chosen": "The cat sat", "rejected": "The car sat"}, {"chosen": "A b", "rejected": "A c"})
    assert found.counts.notes["implicit prompt that ends inside a word"].lines == [1]
    assert len(found.rows) == 2


words = st.text(max_size=6)
message = st.fixed_dictionaries({"role": words, "content": words | st.none()})
cell = words | st.none() | st.lists(message, max_size=2) | st.integers()
row = st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "confidence", "x"]), cell) | st.integers()


@given(st.lists(row.map(lambda r: json.dumps(r).encode()) | st.binary(max_size=12), max_size=10))
def test_any_bytes_are_rows_and_reasons_that_add_up(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        path.write_bytes(b"\n".join(lines))
        try:
            found = read_pairs(path)
        except InputError as e:
            assert e.rule and e.cure
            return
        assert len(found.rows) + sum(d.count for d in found.counts.dropped.values()) == found.counts.total
        for pair in found.rows:
            assert isinstance(pair, TextRow) and pair.chosen != pair.rejected
            assert len({type(part) for part in pair[1:4]}) == 1


# -- tokens in their places -------------------------------------------------------------------------------------------


@given(st.binary(max_size=40))
def test_pieces_of_any_bytes_are_the_whole_text(ids: bytes) -> None:
    """Bytes are the smallest tokens there are: several make one character, and some make none."""

    def decode(some: Sequence[int]) -> str:
        return bytes(some).decode(errors="replace")

    found = pieces(ids, decode)
    assert len(found) == len(ids) and "".join(found) == decode(ids)


def test_a_character_of_several_tokens_stands_with_the_last() -> None:
    ids = "aé".encode() + "漢".encode()
    assert pieces(ids, lambda some: bytes(some).decode(errors="replace")) == ["a", "", "é", "", "", "漢"]
