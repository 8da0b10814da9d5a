"""The shapes that people's preference data have: each gives the same pairs, or is refused in words."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.data.layouts import Layout, layout_of
from alignfirst.data.pairs import LoadedRows, read_pairs
from alignfirst.data.prompts import read_prompts
from alignfirst.data.rows import Message, TextRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.errors import InputError
from alignfirst.study import dry_run
from alignfirst.study.execution.worker import load_world
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs

Row = dict[str, Any]
ASKED = ["a b c", "d e f", "g h i", "j a b", "c d e f", "b b", "h j", "e a c"]
PAIRS = [(q, f"b {q[0]} c", f"j {q[0]} i") for q in ASKED]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def bot(text: str, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def said(source: str, text: str) -> Row:
    return {"from": source, "value": text}


def hh(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


# shape -> a pair in it
SHAPES: dict[str, Callable[[str, str, str], Row]] = {
    "text": lambda q, a, b: {"prompt": q, "chosen": a, "rejected": b},
    "messages": lambda q, a, b: {"prompt": [user(q)], "chosen": [bot(a)], "rejected": [bot(b)]},
    "text, answers are messages": lambda q, a, b: {"prompt": q, "chosen": [bot(a)], "rejected": [bot(b)]},
    "messages, answers are text": lambda q, a, b: {"prompt": [user(q)], "chosen": a, "rejected": b},
    "text, answers are whole": lambda q, a, b: {
        "prompt": q, "chosen": [user(q), bot(a)], "rejected": [user(q), bot(b)], "score_chosen": 8.0,
        "messages": [user(q), bot(a)],
    },
    "messages, answers are whole": lambda q, a, b: {
        "prompt": [user(q)], "chosen": [user(q), bot(a)], "rejected": [user(q), bot(b)],
    },
    "messages, one answer is whole": lambda q, a, b: {
        "prompt": [user(q)], "chosen": [user(q), bot(a)], "rejected": [bot(b)],
    },
    "whole conversations": lambda q, a, b: {"chosen": [user(q), bot(a)], "rejected": [user(q), bot(b)]},
    "whole conversations beside messages": lambda q, a, b: {
        "chosen": [user(q), bot(a)], "rejected": [user(q), bot(b)], "messages": [user(q), bot(a)],
    },
    "question and whole conversations": lambda q, a, b: {
        "question": q, "chosen": [user(q), bot(a)], "rejected": [user(q), bot(b)],
    },
    "content in parts": lambda q, a, b: {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": q}]}],
        "chosen": [bot(a)], "rejected": [bot(b)],
    },
    "sharegpt": lambda q, a, b: {
        "conversations": [said("human", q)], "chosen": said("gpt", a), "rejected": said("gpt", b),
    },
    "sharegpt, lists": lambda q, a, b: {
        "conversations": [said("human", q)], "chosen": [said("gpt", a)], "rejected": [said("gpt", b)],
    },
    "alpaca": lambda q, a, b: {"instruction": q, "input": "", "chosen": a, "rejected": b},
    "alpaca, two parts": lambda q, a, b: {"instruction": q[:1], "input": q[2:], "chosen": a, "rejected": b},
    "orca": lambda q, a, b: {"system": "", "question": q, "chosen": a, "rejected": b},
    "transcripts": lambda q, a, b: {"chosen": hh(q, a), "rejected": hh(q, b)},
    "transcript as prompt": lambda q, a, b: {"prompt": hh(q, ""), "chosen": f" {a}", "rejected": f" {b}"},
    "text, answers are transcripts": lambda q, a, b: {"prompt": q, "chosen": hh(q, a), "rejected": hh(q, b)},
    "marks of another kind": lambda q, a, b: {
        "chosen": f"### Human: {q}### Assistant: {a}", "rejected": f"### Human: {q}### Assistant: {b}",
    },
}  # fmt: skip


def texts(row: TextRow) -> tuple[str, ...]:
    def one(text: Any) -> str:
        return " ".join((text if isinstance(text, str) else " ".join(m.content for m in text)).split())

    return one(row.prompt), one(row.chosen), one(row.rejected)


def read(tmp_path: Path, *rows: Any, **options: Any) -> LoadedRows:
    return read_pairs(made.write(tmp_path / "pairs.jsonl", list(rows)), layout=Layout(**options))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_pairs(shape: str, tmp_path: Path) -> None:
    found = read(tmp_path, *(SHAPES[shape](*pair) for pair in PAIRS))
    assert [texts(row) for row in found.rows] == PAIRS and not found.counts.dropped and not found.counts.notes
    roles = {tuple(m.role for part in row[1:4] if isinstance(part, tuple) for m in part) for row in found.rows}
    assert roles in ({()}, {("user", "assistant", "assistant")})


def test_a_system_message_is_used(tmp_path: Path) -> None:
    for name in ("text", "orca", "sharegpt", "text, answers are whole", "transcripts"):
        [row] = read(tmp_path, SHAPES[name](*PAIRS[0]) | {"system": "j j"}).rows
        assert row.prompt == (Message("system", "j j"), Message("user", PAIRS[0][0])), name
        assert row.chosen == (Message("assistant", PAIRS[0][1]),)
    two = {"prompt": [{"role": "system", "content": "i"}, user("a")], "chosen": "b", "rejected": "c", "system": "j"}
    with pytest.raises(InputError, match="two different system messages"):
        read(tmp_path, two)


@pytest.mark.parametrize("form", ["array", "one line", "csv", "tsv", "semicolons", "messages in csv"])
def test_arrays_and_csv_are_read(form: str, tmp_path: Path) -> None:
    rows = [SHAPES["messages" if form == "messages in csv" else "text"](*pair) for pair in PAIRS]
    path = tmp_path / {"array": "pairs.json", "one line": "pairs.jsonl", "tsv": "pairs.tsv"}.get(form, "pairs.csv")
    if form in ("array", "one line"):
        path.write_text(json.dumps(rows, indent=1 if form == "array" else None))
    else:
        with open(path, "w", newline="") as f:
            out = csv.DictWriter(f, rows[0], delimiter={"tsv": "\t", "semicolons": ";"}.get(form, ","))
            out.writeheader()
            out.writerows([{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows])
    found = read_pairs(path)
    assert [texts(row) for row in found.rows] == PAIRS
    if form != "one line":
        assert found.rows[0].line > 1  # of the file, where a person looks


def test_rows_of_csv_that_are_broken_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(b'prompt,chosen,rejected\na,"b\nc",d\na,b\na,\xff,c\na,b,c\n')
    found = read_pairs(path)
    assert [(row.line, row.chosen) for row in found.rows] == [(2, "b\nc"), (6, "b")]
    assert {why: c.lines for why, c in found.counts.dropped.items()} == {"2 cells for 3 columns": [4], "not UTF-8": [5]}


def test_a_broken_array_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    for text, words in (
        ('[{"prompt": "a"},\n{"prompt": ', "broken near line 2"),
        ('[{"a": 1}]\n[{"a": 2}]', "more text"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_pairs(path)


def test_long_arrays_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignfirst.data.whole_files.BLOCK", 7)
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([SHAPES["text"](*pair) for pair in PAIRS], indent=2))
    found = read_pairs(path)
    assert [texts(row) for row in found.rows] == PAIRS
    lines = path.read_text().splitlines()
    assert all(lines[row.line - 1].strip() == "{" for row in found.rows)


UNKNOWN = [{"query": "a"}, {"input": "a"}, {"messages": [user("a")]}, {"instruction": "a", "question": "a"}]


@pytest.mark.parametrize("columns", UNKNOWN)
@pytest.mark.parametrize("prompt", [{}, {"prompt": ""}, {"prompt": None}])
def test_a_prompt_that_may_be_elsewhere_is_refused_naming_the_columns(
    columns: Row, prompt: Row, tmp_path: Path
) -> None:
    row = {"chosen": "the b", "rejected": "the c"} | columns | prompt
    with pytest.raises(InputError, match=rf"{next(iter(columns))}.*data\.columns"):
        read(tmp_path, row)
    [settled] = read(tmp_path, row, columns={"prompt": next(iter(columns))}).rows
    assert texts(settled) == ("a", "the b", "the c")


def test_an_empty_prompt_beside_a_question_is_refused(tmp_path: Path) -> None:
    for name in ("instruction", "question", "conversations"):
        with pytest.raises(InputError, match=rf"{name}.*data\.columns"):
            read(tmp_path, {"prompt": "", name: [user("a")], "chosen": "b", "rejected": "c"})


def test_columns_and_shape_settle_what_cannot_be_known(tmp_path: Path) -> None:
    named = {"ask": "a", "sys": "s", "good": "b", "bad": "c", "p": 0.8}
    columns = {"prompt": "ask", "system": "sys", "chosen": "good", "rejected": "bad", "confidence": "p"}
    [row] = read(tmp_path, named, columns=columns).rows
    assert texts(row) == ("s a", "b", "c") and row.confidence == 0.8
    with pytest.raises(InputError, match=r"without ask, which data\.columns names as prompt"):
        read(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}, columns={"prompt": "ask"})
    again = {"prompt": "a b", "chosen": "a b c", "rejected": "a b d"}
    noted = read(tmp_path, again)
    assert any("stands again" in note for note in noted.counts.notes) and texts(noted.rows[0])[1] == "a b c"
    assert texts(read(tmp_path, again, shape="conversation").rows[0]) == ("a b", "c", "d")
    kept = read(tmp_path, again, shape="preference")
    assert texts(kept.rows[0])[1] == "a b c" and not kept.counts.notes
    loose = {"chosen": "user: a\nassistant: b", "rejected": "user: a\nassistant: c"}
    assert texts(read(tmp_path, loose, shape="transcript").rows[0]) == ("a", "b", "c")
    with pytest.raises(InputError, match="shape of data must be known"):
        layout_of("chat")
    with pytest.raises(InputError, match="part of a row"):
        layout_of(columns=["promt=a"])


def test_no_words_of_answers_go_to_the_prompt(tmp_path: Path) -> None:
    """Answers that begin alike, in every shape that says where they begin."""
    for name, made_row in SHAPES.items():
        for chat in (True, False):
            [row] = read(tmp_path, made_row("a b c", "i think d", "i think e"), chat=chat).rows
            assert "think" not in texts(row)[0] and texts(row)[1:] == ("i think d", "i think e"), name
    found = read(tmp_path, {"chosen": "a b. c d", "rejected": "a b. c e"})
    assert any("common beginning" in note for note in found.counts.notes)


def test_turns_of_transcripts_that_both_share_are_the_prompt(tmp_path: Path) -> None:
    row = {"chosen": hh("a", "b", "c", "d e"), "rejected": hh("a", "b", "c", "d f")}
    [found] = read(tmp_path, row).rows
    assert [tuple(m) for m in found.prompt] == [("user", "a", ""), ("assistant", "b", ""), ("user", "c", "")]
    [text] = read(tmp_path, row, chat=False).rows
    assert text.prompt == hh("a", "b", "c", "").rstrip() and (text.chosen, text.rejected) == (" d e", " d f")
    with pytest.raises(InputError, match="different conversations"):
        read(tmp_path, {"chosen": hh("a", "b"), "rejected": hh("c", "d")})


def test_unused_columns_are_named_once(tmp_path: Path) -> None:
    found = read(tmp_path, *(SHAPES["text"](*pair) | {"id": n, "score": 1} for n, pair in enumerate(PAIRS)))
    assert found.told() == ["not used: id, score"]


def test_prompts_are_read_from_conversations(tmp_path: Path) -> None:
    rows = [
        {"conversations": [said("human", "a"), said("gpt", "b")]},
        {"instruction": "c", "input": "d"},
        {"question": "e"},
    ]
    found = read_prompts(made.write(tmp_path / "prompts.jsonl", rows))
    assert [row.prompt for row in found.rows] == [(Message("user", "a"),), "c\nd", "e"]


# -- what templates leave out -----------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"q": "b"}}}
OTHER = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": {"q": "c"}}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
    }
]
FULL = (
    "{% if tools %}tools {{ tools|tojson }} <end> {% endif %}{% for m in messages %}{{ m['role'] }} "
    "{% if m.reasoning_content %}g {{ m.reasoning_content }} h {% endif %}{{ m['content'] or '' }} "
    "{% for c in m.tool_calls or [] %}i {{ c.function|tojson }} {% endfor %}<end> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
FIRST_CALL = FULL.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
SAY_OR_CALL = FULL.replace("{{ m['content'] or '' }}", "{% if not m.tool_calls %}{{ m['content'] }}{% endif %}")
NO_TOOL_TURNS = FULL.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}")
SPECIAL: dict[str, Row] = {
    "a call": {"prompt": [user("a")], "chosen": [bot("b", tool_calls=[CALL])], "rejected": [bot("c")]},
    "only a call": {
        "prompt": [user("a")], "chosen": [bot("", tool_calls=[CALL])], "rejected": [bot("", tool_calls=[OTHER])],
    },
    "null beside a call": {"prompt": [user("a")], "chosen": [bot(None, tool_calls=[CALL])], "rejected": [bot("c")]},
    "two calls": {"prompt": [user("a")], "chosen": [bot("", tool_calls=[CALL, OTHER])], "rejected": [bot("c")]},
    "a call in the context": {
        "prompt": [user("a"), bot("", tool_calls=[CALL]), {"role": "tool", "content": "d", "tool_call_id": "c1"}],
        "chosen": [bot("b")], "rejected": [bot("c")],
    },
    "reasoning": {
        "prompt": [user("a")], "chosen": [bot("b", reasoning_content="e")],
        "rejected": [bot("c", reasoning_content="f")],
    },
}  # fmt: skip
SPECIAL = {name: row if name == "reasoning" else row | {"tools": TOOLS} for name, row in SPECIAL.items()}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("as_text", [False, True])
def test_calls_and_reasoning_are_what_the_template_makes_of_them(name: str, as_text: bool, tmp_path: Path) -> None:
    tokenizer, row = made.tokenizer(FULL), SPECIAL[name]
    given = row | {"tools": json.dumps(row["tools"])} if as_text and "tools" in row else row
    texts, [ids] = Tokeniser(tokenizer).kept(read(tmp_path, given), "pairs")
    for answer in ("chosen", "rejected"):
        expected = tokenizer.apply_chat_template(
            row["prompt"] + row[answer], tools=row.get("tools"), tokenize=True, return_dict=True
        )
        assert ids.prompt + getattr(ids, answer) == expected["input_ids"]
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("name", "template", "words"),
    [
        ("a call", made.TEMPLATE, "ignores tools"),
        ("only a call", made.TEMPLATE, "ignores tools"),
        ("reasoning", made.TEMPLATE, "ignores reasoning_content"),
        ("two calls", FIRST_CALL, "ignores one of several tool_calls"),
        ("a call", SAY_OR_CALL, "ignores what assistant says beside tool_calls"),
        ("a call in the context", NO_TOOL_TURNS, "ignores what tool says"),
    ],
)
def test_what_the_template_leaves_out_is_a_reason(name: str, template: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        Tokeniser(made.tokenizer(template)).kept(read(tmp_path, SPECIAL[name]), "pairs")


def test_calls_survive_parquet(tmp_path: Path) -> None:
    """Arrow gives every object the keys that any of them has, as nulls."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [SPECIAL["a call"], SPECIAL["only a call"], SPECIAL["a call in the context"]]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    tokeniser = Tokeniser(made.tokenizer(FULL))
    _, expected = tokeniser.kept(read(tmp_path, *rows), "pairs")
    assert tokeniser.kept(read_pairs(tmp_path / "pairs.parquet"), "pairs")[1] == expected


# -- in a study -------------------------------------------------------------------------------------------------------


def test_a_study_says_how_it_understood_the_rows(tmp_path: Path) -> None:
    folder = made.teacher(tmp_path / "teacher", made.TEMPLATE)
    pairs = [(row["prompt"], row["chosen"].strip(), row["rejected"].strip()) for row in made.pairs(30)]
    data = made.write(tmp_path / "pairs.jsonl", [SHAPES["text, answers are whole"](*pair) for pair in pairs])
    study = made.study(folder, data)
    found = dry_run.preflight(study, load_world("hf"), strict=True)  # nothing here is a warning
    assert found is not None
    assert any("answers are whole conversations" in line for line in found.lines)
    assert any("not used: score_chosen, messages" in line for line in found.lines)
    kept = resolve_inputs(study).index.meta["kept"]
    plain = made.write(tmp_path / "plain.jsonl", [SHAPES["messages"](*pair) for pair in pairs])
    assert kept == resolve_inputs(made.study(folder, plain)).index.meta["kept"] > 20


def test_a_study_in_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    folder = made.teacher(tmp_path / "teacher", made.TEMPLATE)
    data = made.write(tmp_path / "pairs.jsonl", [{"query": q, "chosen": a, "rejected": b} for q, a, b in PAIRS])
    for budget in ("updates", "flops"):  # with which prices are asked for before the pre-flight
        study = made.study(folder, data, **{"budget.match": budget})
        with pytest.raises(InputError, match=r"dropped 8: no prompt, but it may be in query.*data\.columns"):
            dry_run.dry_run(study, tmp_path / "run")
    named = made.study(folder, data, **{"data.columns.prompt": "query"})
    assert resolve_inputs(named).index.meta["kept"] == 8


def test_questions_with_other_answers_stand_on_one_side(tmp_path: Path) -> None:
    """Answers that begin alike are no part of the question; nor are calls and turns of tools behind it."""
    folder = made.teacher(tmp_path / "teacher", FULL)
    rows = [{"chosen": hh(q, f"{w} {w} b"), "rejected": hh(q, f"{w} {w} c")} for q in ASKED for w in "adgj"]
    call = SPECIAL["a call in the context"]
    rows += [call | {"prompt": [user("i j"), bot("", tool_calls=[made_call]), {"role": "tool", "content": w}]}
             for w in "abc" for made_call in (CALL, OTHER)]  # fmt: skip
    index = resolve_inputs(made.study(folder, made.write(tmp_path / "pairs.jsonl", rows))).index
    sides: dict[int, set[bool]] = {}
    for line, held in zip(index.arrays["line"].tolist(), index.arrays["held"].tolist(), strict=True):
        sides.setdefault(min((line - 1) // 4, len(ASKED)), set()).add(held)
    assert len(sides) == len(ASKED) + 1 and all(len(side) == 1 for side in sides.values())
