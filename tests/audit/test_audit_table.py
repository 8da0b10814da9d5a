"""Files of log-probabilities: what they may hold, what is refused and in which words, what the audit makes of them."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.auditing.findings import audit
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target, inputs_of
from alignfirst.auditing.logprob_table import COLUMNS, build, read
from alignfirst.auditing.preference_rows import every_row
from alignfirst.data.row_files import placed_lines
from alignfirst.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample(**more: Any) -> dict[str, Any]:
    return {"kind": "sample", "source": "reference", "logp_reference": -3.0, "reward": 0.5} | more


def pair(n: int, w: float, lost: float, **more: Any) -> list[dict[str, Any]]:
    common = {"prompt_id": f"p{n}", "tokens": 10} | more
    return [
        common | {"kind": "chosen", "logp_reference": w, "logp_teacher": w + 1.0},
        common | {"kind": "rejected", "logp_reference": lost, "logp_teacher": lost + 0.25},
    ]


def test_every_column_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", DOCS.read_text().split("## The file")[1], re.MULTILINE)
    assert rows[: len(COLUMNS)] == [(c.name, c.type, c.meaning) for c in COLUMNS]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least one row"),
        (["text"], "JSON object.*line 1"),
        ([[1]], "JSON object.*line 1"),
        ([{"logp_reference": -1.0}], "needs kind"),
        ([{"kind": "sample"}], "needs logp_reference"),
        ([sample(kind="winner")], "kind must be one of.*winner.*line 1"),
        ([sample(kind=[1])], "kind must be one of.*line 1"),
        ([sample(), sample(kind=None)], "needs a kind.*line 2"),
        ([sample(source=None)], "say its source.*line 1"),
        ([sample(source="me")], "source must be one of"),
        ([sample(), sample(logp_reference=0.5)], "logp_reference must be <= 0.*0.5 in line 2"),
        ([sample(logp_reference=None)], "needs logp_reference.*line 1"),
        ([sample(logp_reference="-3")], "must be a number.*line 1"),
        ([sample(logp_reference=True)], "must be a number.*line 1"),
        ([sample(logp_reference=math.nan)], "must be a finite number.*nan in line 1"),
        ([sample(reward=math.inf)], "must be a finite number"),
        ([sample(reward=10**400)], "must be a finite number"),
        ([sample(tokens=1.5)], "whole number >= 0"),
        ([sample(tokens=-1)], "whole number >= 0"),
        ([sample(in_target="yes")], "true or false.*line 1"),
        ([sample(prompt_id=1.5)], "prompt_id must be text"),
        ([sample(prompt_id="a"), sample()], "prompt_id must be text or a whole number.*line 2"),
    ],
)
def test_bad_rows_are_refused_with_their_line(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(write(tmp_path / "bad.jsonl", rows))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([sample(), sample(reward=None)], "every sample has reward or none.*line 2"),
        ([sample(in_target=True), sample()], "every sample has in_target or none.*line 2"),
        ([sample(), sample(source="teacher", logp_teacher=-1.0)], "logp_teacher in every sample.*line 1"),
        ([sample(source="teacher", logp_teacher=-1.0)], "samples of the reference"),
        ([pair(0, -5.0, -6.0)[0]], "come in pairs.*line 1 alone"),
        ([*pair(0, -5.0, -6.0), *pair(0, -5.0, -6.0)], "one chosen response.*line 3"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        inputs_of(read(write(tmp_path / "bad.jsonl", rows)))


def test_a_missing_file_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in a file"):
        read(tmp_path / "none.jsonl")
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps(sample()).encode() * 500)[:-20])
    with pytest.raises(InputError, match="must be whole"):
        read(zipped)


def test_gzip_is_told_by_content_and_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(sample()) + "\n\n" + json.dumps(sample(reward=1)) + "\n"
    (tmp_path / "plain.gz").write_bytes(text.encode())
    (tmp_path / "zipped.jsonl").write_bytes(gzip.compress(text.encode()))
    for name in ("plain.gz", "zipped.jsonl"):
        table = read(tmp_path / name)
        assert table.reward.tolist() == [0.5, 1.0] and table.line.tolist() == [1, 3]


def test_a_line_that_is_too_long_is_passed_over_without_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"a\n" + b"x" * 1000 + b"\nb\n" + b"y" * 10 + b"\n" + b"z" * 25)
    assert [line for _, line in placed_lines(path, 10)] == [b"a\n", None, b"b\n", b"y" * 10 + b"\n", None]


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 12))
def test_lines_are_those_of_the_file(parts: list[bytes], limit: int) -> None:
    import tempfile

    data = b"\n".join(part.replace(b"\n", b"").lstrip(b"\xef\x1f") for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(data)
        expected = [x if len(x.removesuffix(b"\n")) <= limit else None for x in data.splitlines(keepends=True)]
        if b"\r" not in data and not any(c in data for c in b"\x0b\x0c\x1c\x1d\x1e\x85"):
            assert [line for _, line in placed_lines(path, limit)] == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from([c.name for c in COLUMNS]) | st.text(max_size=4), json_values)))
def test_any_rows_are_a_table_or_a_refusal_in_words(rows: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        table = build({name: [row.get(name) for row in rows] for name in names}, range(1, len(rows) + 1))
        audit(inputs_of(table), [Plan("ppo", 0.1, 100)]).plain()
    except InputError as e:
        assert e.rule and e.cure


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="pip install pyarrow"):
        read(tmp_path / "rows.parquet")


def test_parquet_is_read_as_the_same_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [sample(in_target=True, prompt_id="a"), sample(reward=0.1, in_target=False, prompt_id="b")]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    a, b = read(tmp_path / "rows.parquet"), read(write(tmp_path / "rows.jsonl", rows))
    for name in ("kind", "source", "reward", "in_target", "prompt", "logp_reference"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="must be Parquet"):
        read(tmp_path / "bad.parquet")


# -- what is made of the rows ---------------------------------------------------------------------------------------


def test_the_target_is_a_rule_a_column_or_read_off_examples(tmp_path: Path) -> None:
    rows = [sample(reward=r / 10, in_target=r < 5) for r in range(10)]
    table = read(write(tmp_path / "rows.jsonl", rows))
    by_rule = inputs_of(table, Target.parse("R >= 0.7")).draws
    assert by_rule is not None and by_rule.in_target is not None and by_rule.in_target.sum() == 3
    by_column = inputs_of(table).draws
    assert by_column is not None and by_column.in_target is not None and by_column.in_target.sum() == 5
    examples = write(tmp_path / "wanted.jsonl", [{"logp_reference": -1.0, "reward": r} for r in (0.5, 0.7, 0.9)])
    plain = write(tmp_path / "plain.jsonl", [sample(reward=r / 10) for r in range(10)])
    found = inputs_of(read(plain, examples))
    assert found.target is not None and found.target.startswith("R >= 0.54")
    assert found.draws is not None and found.draws.preferred is not None
    assert found.draws.preferred.tolist() == [0.5, 0.7, 0.9]


@pytest.mark.parametrize("text", ["R > x", "0.5", "R >= 0.5; import os", "R >= nan", "R >= 1e999", ""])
def test_a_target_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="rule on the reward"):
        Target.parse(text)


@pytest.mark.parametrize(("text", "hits"), [("R>=2", 2), ("R > 2", 1), ("R <= -1e0", 1), (" R < .5 ", 2)])
def test_rules(text: str, hits: int) -> None:
    assert Target.parse(text).holds(np.array([-1.0, 0.0, 2.0, 3.0])).sum() == hits


def test_preference_rows_are_counted_as_by_hand(tmp_path: Path) -> None:
    """Margins 1, -2, 0 and 3: two right, a tie counts half. log q - log p is -1 on chosen, -0.25 on rejected."""
    margins = (1.0, -2.0, 0.0, 3.0)
    rows = [row for n, m in enumerate(margins) for row in pair(n, -5.0, -5.0 - m)]
    found = inputs_of(read(write(tmp_path / "rows.jsonl", rows)))
    assert found.pairs is not None and found.draws is None
    result = audit(found, [Plan("ppo", 0.1, 100)])
    told = result.plain()
    assert told["pairs"]["discrimination"]["value"] == pytest.approx(2.5 / 4)
    assert told["pairs"]["margin"]["value"] == pytest.approx(0.5)
    assert told["pairs"]["cost_chosen"]["value"] == -1.0 and told["pairs"]["cost_rejected"]["value"] == -0.25
    assert told["pairs"]["cost_per_token_chosen"]["value"] == pytest.approx(-0.1)
    assert [row["margin"] for row in every_row(found.pairs)] == list(margins)
    assert result.headline().startswith("INSUFFICIENT DATA") and "reward" in result.headline()
    assert told["coverage"]["profile"][0]["value"] == 0.0 and told["coverage"]["profile"][1]["value"] == 1.0


def test_typicality_compares_with_the_reference_s_own_words(tmp_path: Path) -> None:
    """Own samples: 2 and 6 nats over 2 and 2 tokens, 2 a token. Chosen: 30 nats over 10 tokens, 3 a token."""
    own = [sample(prompt_id="p0", logp_reference=x, tokens=2, reward=None) for x in (-2.0, -6.0)]
    rows = [*pair(0, -30.0, -40.0), *own]
    told = audit(inputs_of(read(write(tmp_path / "rows.jsonl", rows))), []).plain()
    assert told["pairs"]["typicality"]["value"] == pytest.approx(1.0)


def test_rows_are_worst_first_and_name_their_rarest_step(tmp_path: Path) -> None:
    rows = [row for n in range(6) for row in pair(n, -5.0, -6.0, rarest_logp=-2.0 - n, rarest_at=n)]
    rows[6]["logp_teacher"] = -0.5  # pair 3: chosen lost 4.5 nats
    told = audit(inputs_of(read(write(tmp_path / "rows.jsonl", rows))), []).plain()
    first = told["pairs"]["worst"][0]
    assert (first["line"], first["cost_chosen"], first["rarest_step"], first["rarest_at"]) == (7, -4.5, -5.0, 3)


def test_findings_are_json_without_nan_and_every_number_has_an_interval_or_a_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        sample(reward=float(r), logp_reference=-float(x))
        for r, x in zip(random.random(200), random.random(200), strict=True)
    ]
    rows += [row for n in range(8) for row in pair(n, -5.0 - n, -6.0)]
    for row in rows[:200]:
        row["prompt_id"] = "p0"
    plans = [Plan(a, b, 10_000) for a in ("ppo", "ipo", "dpo-offline") for b in (0.01, 0.1)]
    table = read(write(tmp_path / "rows.jsonl", rows))
    for target in (None, Target.parse("R >= 0.9"), Target.parse("R >= 2")):
        told = json.loads(json.dumps(audit(inputs_of(table, target), plans).plain(), allow_nan=False))
        numbers = list(find_numbers(told))
        assert numbers
        for number in numbers:
            assert number["why"] or (number["low"] is not None and number["high"] is not None), number


def find_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        if {"value", "low", "high", "why"} <= value.keys():
            yield value
        for inner in value.values():
            yield from find_numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from find_numbers(inner)
