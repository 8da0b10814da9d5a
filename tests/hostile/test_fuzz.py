"""Anything at all as input: the answer is a result or an error in words, never a fault."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger import Count
from typer.testing import CliRunner

from alignfirst.api import Run, run
from alignfirst.auditing.findings import audit
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target, inputs_of
from alignfirst.auditing.logprob_table import COLUMNS, read
from alignfirst.cli.app import app
from alignfirst.data.pairs import read_pairs
from alignfirst.errors import AlignfirstError, InputError, StoreError
from alignfirst.files import sealed
from alignfirst.nodes import Artefact
from alignfirst.store import Store, _name, encode
from alignfirst.study.config import preset_files, yaml_io
from alignfirst.study.config.overrides import depths
from alignfirst.study.config.study_config import WORLDS, from_mapping
from alignfirst.study.config.validation import keys
from alignfirst.study.output.run_dir import config_text
from alignfirst.theory.objectives import ALGORITHMS

Counter = Callable[[str], Count]
EXAMPLES = pytest.mark.parametrize("examples", [150, pytest.param(10_000, marks=[pytest.mark.slow])])
pytestmark = pytest.mark.timeout(1800)


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of files and fsyncs


def fuzz(counted: Count, examples: int, check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
    """Call `check` with so many examples, and count those that it survives."""

    def counting(**values: Any) -> None:
        with counted.trial():
            check(**values)

    quiet = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    quiet(given(**strategies)(counting))()


def in_words(e: Exception) -> None:
    assert str(e) and str(e).isprintable() and len(str(e)) < 1500, e


CHARACTERS = st.characters(codec=None) | st.sampled_from(
    "\0\ud800\u202e\x1b\x7f\x85\u2028é🙂\\/\"'{}[]:,&*!%@`#|>-?~=.$;\n\r\t 01e"
)
TEXTS = st.text(CHARACTERS, max_size=12)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.sampled_from([10**19, -(10**400), 2**31, 2**63, True, False]),
    st.floats(), st.sampled_from([0.0, -0.0, 5e-324, 1e-5, 1e308, math.inf, -math.inf, math.nan]),
)  # fmt: skip
LEAVES = st.one_of(st.none(), NUMBERS, TEXTS)
DATA = st.recursive(LEAVES, lambda x: st.lists(x, max_size=4) | st.dictionaries(TEXTS, x, max_size=4), max_leaves=10)

# -- config ---------------------------------------------------------------------------------------------------------

MODELS = {name: type(from_mapping({"world": name})) for name in WORLDS if name in ("mog", "grammar")}
KEYS = sorted({key for model in MODELS.values() for key in (*keys(model), *depths(model))})
KNOWN = st.sampled_from(KEYS) | st.sampled_from(KEYS).map("vary.{}".format) | TEXTS
WORDS = st.sampled_from(
    [*preset_files.names(), *ALGORITHMS, "align-distil", "mog", "grammar", "hf", "sft", "trl", "token"]
)
VALUES = st.one_of(WORDS, st.lists(WORDS, max_size=3), DATA)
STUDIES = st.dictionaries(KNOWN, VALUES, max_size=5) | st.dictionaries(
    st.sampled_from(["world", "extends", "vary", "align", "distil", "seeds", "beta", "p_star", "name"]),
    VALUES,
    max_size=5,
)


def check_study(data: dict[str, Any], sets: list[tuple[str, Any]], text: str) -> None:
    """A mapping, keys set on top as text, and what was read is read back from its own config.yaml."""
    try:
        study = preset_files.load(data, [f"{key}={value}" for key, value in sets] + [text] * bool(text))
    except InputError as e:
        assert e.rule and e.cure
        return in_words(e)
    again = from_mapping(yaml_io.loads(config_text(study)))
    assert again == study and config_text(again) == config_text(study)


@EXAMPLES
def test_configs(examples: int, count: Counter) -> None:
    """Any study (data, --set) is a valid one that its own config.yaml reads back as, or an InputError in words."""
    sets = st.lists(st.tuples(KNOWN, VALUES), max_size=2)
    fuzz(count("fuzz: configs"), examples, check_study, data=STUDIES, sets=sets, text=st.just("") | TEXTS)


PRESETS = [Path(preset_files.__file__).parent / "presets" / f"{name}.yaml" for name in preset_files.names()]


def check_yaml(text: str, cuts: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(text.encode())
    for at, length, put in cuts:
        at %= len(data) + 1
        data[at : at + length] = put
    try:
        preset_files.load(yaml_io.loads(bytes(data)))
    except InputError as e:
        in_words(e)


@EXAMPLES
def test_study_files(examples: int, count: Counter) -> None:
    """Any study file that was changed anywhere is a valid one or an InputError in words."""
    texts = st.sampled_from([path.read_text() for path in PRESETS])
    put = st.binary(max_size=6) | st.sampled_from(
        [b"&a ", b"*a", b"!!x ", b"\t", b"\n", b"[", b"{", b"- ", b": ", b"'"]
    )
    cuts = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20), put), min_size=1, max_size=4)
    fuzz(count("fuzz: study files"), examples, check_yaml, text=texts, cuts=cuts)


# -- rows -----------------------------------------------------------------------------------------------------------


def lines(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """A file of JSON lines, some of them damaged, plain or gzipped, perhaps cut short."""

    def text(row: Any) -> bytes:
        return json.dumps(row).encode() if not isinstance(row, bytes) else row

    whole = st.lists(rows | rows | rows | st.binary(max_size=20), max_size=8).map(lambda r: b"\n".join(map(text, r)))
    zipped = st.tuples(whole, st.integers(0, 60)).map(lambda t: gzip.compress(t[0])[: -t[1] or None])
    return st.one_of(whole, whole, whole.map(lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")), zipped)


MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}) | DATA, max_size=3)
ANSWERS = st.one_of(st.sampled_from(["", "a", "b", "a b", " "]), TEXTS, MESSAGES, DATA)
PAIRS = st.fixed_dictionaries(
    {"chosen": ANSWERS, "rejected": ANSWERS}, optional={"prompt": ANSWERS, "confidence": NUMBERS, "x": DATA}
)


def check_pairs(folder: Path, content: bytes, limit: int | None) -> None:
    path = folder / "pairs.jsonl"
    path.write_bytes(content)
    try:
        found = read_pairs(path, limit)
    except (InputError, StoreError) as e:
        return in_words(e)
    assert len(found.rows) + sum(c.count for c in found.counts.dropped.values()) == found.counts.total
    json.dumps(found.plain(), allow_nan=False)
    assert found.summary().isprintable()


@EXAMPLES
def test_preference_rows(examples: int, count: Counter, tmp_path: Path) -> None:
    """Any file of preference rows is read, every row kept or dropped for a counted reason, or refused in words."""
    limits = st.none() | st.integers(-1, 3)
    fuzz(
        count("fuzz: preference rows"),
        examples,
        check_pairs,
        folder=st.just(tmp_path),
        content=lines(PAIRS),
        limit=limits,
    )


LOGP = st.sampled_from([0.0, -0.0, 1e-4, -1e-3, -1.0, -2.5, -40.0, -745.0, -1e4, -1e300]) | NUMBERS
REWARD = st.sampled_from([0.0, 1.0, 0.5, -1.0, 1e-300, 5e-324, 1e300, -1e308, 700.0]) | NUMBERS
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {c.name: DATA for c in COLUMNS[1:]} | {"x": DATA}
ROWS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["sample", "chosen", "rejected", "target"]), "logp_reference": LOGP},
    optional={name: strategy for name, strategy in OPTIONAL.items() if name != "logp_reference"},
)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows that hang together, so that they reach the formulas; numbers are as odd as they come."""
    tidy = st.floats(-50, 0, allow_subnormal=False) if draw(st.booleans()) else LOGP.filter(_is_logp)
    rewards = st.sampled_from([0.0, 1.0]) if draw(st.booleans()) else REWARD.filter(_is_number)
    teacher, prompts = draw(st.booleans()), draw(st.integers(1, 3))
    rows: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["sample", "sample", "sample", "target"]))
        row = {"kind": kind, "logp_reference": draw(tidy), "reward": draw(rewards)}
        row |= {"prompt_id": draw(st.integers(1, prompts)), "tokens": draw(st.integers(0, 9))}
        if kind == "sample":
            row["source"] = draw(st.sampled_from(["reference", "teacher"])) if teacher else "reference"
        if teacher:
            row["logp_teacher"] = draw(tidy)
        rows.append(row)
    for pair in range(draw(st.integers(0, 4))):
        both = {"pair_id": pair, "prompt_id": 1}
        rows += [both | {"kind": kind, "logp_reference": draw(tidy)} for kind in ("chosen", "rejected")]
    return rows


def _is_number(x: Any) -> bool:
    return type(x) is float and math.isfinite(x)


def _is_logp(x: Any) -> bool:
    return _is_number(x) and x <= 1e-3


def check_audit(folder: Path, content: bytes | list[dict[str, Any]], beta: float, rule: str | None) -> None:
    path = folder / "rows.jsonl"
    raw = content if isinstance(content, bytes) else "".join(json.dumps(row) + "\n" for row in content).encode()
    path.write_bytes(raw)
    try:
        target = None if rule is None else Target.parse(rule)
        plans = [Plan(name, beta, 1000, "bradley-terry") for name in ("reinforce", "dpo-offline")]
        result = audit(inputs_of(read(path), target), plans)
    except AlignfirstError as e:
        return in_words(e)
    json.dumps(result.plain(), allow_nan=False)
    assert set(result.calls) <= {"go", "no-go", "insufficient data"}


BETAS = st.sampled_from([1e-3, 0.1, 1.0, 100.0])
RULES = st.sampled_from([None, "R >= 0.5", "R < 0", "R > 1e308", "R >= x", "R >= nan"])


@EXAMPLES
def test_log_probabilities(examples: int, count: Counter, tmp_path: Path) -> None:
    """Any file of log-probabilities is audited, to JSON without a NaN, or refused in words."""
    content = lines(ROWS) | tables()
    fuzz(
        count("fuzz: log-probabilities"), examples, check_audit,
        folder=st.just(tmp_path), content=content, beta=BETAS | st.floats(), rule=RULES,
    )  # fmt: skip


# -- stores and manifests -------------------------------------------------------------------------------------------

GOOD = b"".join(encode(Artefact({}, {"reward": 1.0})))
ENTRIES = st.lists(
    st.lists(DATA, max_size=5)
    | st.tuples(
        st.sampled_from(["a", "b", "../x"]), st.integers(-9, 200) | NUMBERS, st.integers(-9, 2**62),
        st.sampled_from([hashlib.sha256(GOOD).hexdigest(), ""]),
    ).map(list)
    | st.just(["a", 0, len(GOOD), hashlib.sha256(GOOD).hexdigest()]),
    max_size=4,
)  # fmt: skip
HEADERS = st.one_of(
    st.binary(max_size=40),
    DATA.map(lambda x: json.dumps(x).encode()),
    st.fixed_dictionaries({"format": st.just(1) | DATA, "entries": ENTRIES | DATA}).map(
        lambda x: json.dumps(x).encode()
    ),
)
SAFETENSORS = DATA.map(lambda x: json.dumps({"__metadata__": x}).encode()).map(
    lambda h: len(h).to_bytes(8, "little") + h
)
PAYLOADS = st.one_of(st.just(GOOD), SAFETENSORS, st.binary(max_size=80), st.just(b"\xff" * 16 + GOOD))


def check_store(header: bytes, payload: bytes, honest: bool, cut: int) -> None:
    """A shard that somebody made, under the name that its first line asks for."""
    if honest:  # a payload that is no artefact, truthfully described
        digest = hashlib.sha256(payload).hexdigest()
        header = json.dumps({"format": 1, "entries": [["a", 0, len(payload), digest]]}).encode()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder) / "store"
        root.mkdir()
        line = header.replace(b"\n", b"") + b"\n"
        (root / _name(line)).write_bytes((line + payload)[: None if cut > 100 else cut])
        for use in (
            lambda s: s.keys(),
            lambda s: s.get("a"),
            lambda s: s.digests(),
            lambda s: s.heal(),
            lambda s: s.get("a"),
        ):
            try:
                use(Store(root))
            except StoreError as e:
                in_words(e)
        assert [path.name for path in Path(folder).iterdir()] == ["store"], "nothing outside the store"


@EXAMPLES
def test_stores(examples: int, count: Counter) -> None:
    """Any shard, also one made to deceive whose name fits its first line, is read or refused in words."""
    fuzz(
        count("fuzz: stores"), examples, check_store,
        header=HEADERS, payload=PAYLOADS, honest=st.booleans(), cut=st.integers(0, 300),
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = {
        "seeds": 1, "recipes": "align-distil", "algorithms": ["reinforce"], "beta": 0.1, "align.updates": 20,
        "sft.samples": 200,
        "sft.components": 8, "distil.samples": 200, "preferences.pairs": 64,
    }  # fmt: skip
    return run("mog-quick", out=tmp_path_factory.mktemp("finished") / "tiny", workers=0, set=tiny).path


def invoke(*arguments: str) -> None:
    """The command line; whatever it is given, an exit code of its own and words that do not steer a terminal."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code in (0, 1, 2, 3, 4), (arguments, result.exception)
    assert "a fault of alignfirst" not in result.stderr and "Traceback" not in result.stderr, (arguments, result.stderr)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    text = result.stdout + result.stderr
    assert all(c.isprintable() or c in "\n\t" for c in text), (arguments, text)


MANIFEST_KEYS = st.sampled_from(
    ["status", "counts", "digests", "varied", "seeds", "seconds", "started", "preset", "name", "version", "hardware",
     "schema_version", "manifest_version", "plan_digest", "command", "finished", "world", "digest"]
)  # fmt: skip


def check_manifest(finished: Path, folder: Path, changes: dict[str, Any], honest: bool, lost: str | None) -> None:
    manifest = json.loads((finished / "manifest.json").read_text()) | changes
    if lost is not None:
        manifest.pop(lost, None)
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest) if honest else manifest))
    invoke("ls", str(folder.parent))
    invoke("status", str(folder))
    try:
        Run(folder).verdicts()
    except AlignfirstError as e:
        in_words(e)


@EXAMPLES
def test_manifests(examples: int, count: Counter, finished: Path, tmp_path: Path) -> None:
    """Any manifest, also one that is sealed, is shown for what it is or refused in words."""
    folder = Path(shutil.copytree(finished, tmp_path / "runs" / "x"))
    fuzz(
        count("fuzz: manifests"), examples, check_manifest, finished=st.just(finished), folder=st.just(folder),
        changes=st.dictionaries(MANIFEST_KEYS, DATA, max_size=3), honest=st.booleans(), lost=st.none() | MANIFEST_KEYS,
    )  # fmt: skip


# -- the command line -----------------------------------------------------------------------------------------------

COMMANDS = ["run", "report", "audit", "compare", "ls", "status", "presets", "show", "exhibits", "--version", "--help"]
OPTIONS = [
    "--set", "--out", "--workers", "--json", "--no-report", "--reference", "--log-probs", "--pairs", "--target",
    "--beta",
    "--algorithm", "--labels", "--rollouts", "--samples", "--rows", "--gate", "--require-go", "--teacher", "--prompts",
    "--reward", "--target-file", "--new-tokens", "--metric", "-h", "--", "-",
]  # fmt: skip
ARGUMENTS = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(
        ["mog", "mog-quick", "x", "rows.jsonl", "study.yaml", ".", "..", "/", "0", "-1", "nan", "beta=0.1", "seeds=3",
         "x:sft", "x:align-distil/align@beta=0.1", "reinforce", "R >= 0.5", "\0", "a" * 300]
    ),
    TEXTS, NUMBERS.map(str),
)  # fmt: skip


def check_command(command: str, arguments: list[str]) -> None:
    if command == "run":  # says what it would do; training is for other tests
        arguments = ["--dry-run", *(a for a in arguments if a != "--")]
    invoke(command, *arguments)


@EXAMPLES
def test_command_lines(examples: int, count: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any command line ends with an exit code of this program and words that cannot steer a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ALIGNFIRST_DEBUG", raising=False)
    (tmp_path / "rows.jsonl").write_text(
        '{"kind": "sample", "source": "reference", "logp_reference": -1, "reward": 1}\n'
    )
    (tmp_path / "study.yaml").write_text("extends: mog-quick\n")
    before = sorted(p.name for p in tmp_path.parent.iterdir())
    fuzz(
        count("fuzz: command lines"), examples, check_command,
        command=st.sampled_from(COMMANDS) | TEXTS, arguments=st.lists(ARGUMENTS, max_size=6),
    )  # fmt: skip
    assert sorted(p.name for p in tmp_path.parent.iterdir()) == before
