"""Files of rows as the world makes them: every row kept, dropped for a counted reason, or refused with its line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger import Count

from alignfirst.auditing.logprob_table import read
from alignfirst.data.pairs import read_pairs
from alignfirst.data.prompts import read_prompts
from alignfirst.data.shapes import MAX_CELL
from alignfirst.errors import InputError

Counter = Callable[[str], Count]


def pair(i: int, **more: Any) -> bytes:
    row = {"prompt": f"question {i}", "chosen": f"yes {i}", "rejected": f"no {i}"} | more
    return json.dumps(row).encode()


def logp(i: int, **more: Any) -> bytes:
    row = {
        "kind": "sample",
        "source": "reference",
        "logp_reference": -1.0 - i,
        "reward": 1.0,
        "prompt": f"p {i}",
    } | more
    return json.dumps(row).encode()


TEN = range(10)
# how a file is spoilt: its bytes from good lines; whether pairs are kept (how many), whether log-probabilities are read
FILES: dict[str, tuple[Callable[[list[bytes]], bytes], int | str, int | str]] = {
    "plain": (lambda good: b"\n".join(good), 10, 10),
    "no line break at the end, CRLF": (lambda good: b"\r\n".join(good), 10, 10),
    "a byte-order mark": (lambda good: b"\xef\xbb\xbf" + b"\n".join(good), 10, 10),
    "blank lines": (lambda good: b"\n\n  \n".join(good) + b"\n\n", 10, 10),
    "gzipped": (lambda good: gzip.compress(b"\n".join(good)), 10, 10),
    "gzipped twice over, one after the other": (lambda g: gzip.compress(g[0] + b"\n") + gzip.compress(g[1]), 2, 2),
    "empty": (lambda good: b"", "at least one", "at least one"),
    "a byte-order mark alone": (lambda good: b"\xef\xbb\xbf", "at least one", "at least one"),
    "null": (lambda good: b"\n".join([b"null", *good]), 10, "line 1"),
    "latin-1": (
        lambda good: b"\n".join([*good, b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}']),
        10,
        "line 11",
    ),
    "utf-16": (lambda good: b"\n".join(good).decode().encode("utf-16"), "usable", "line 1"),
    "half a line": (lambda good: b"\n".join(good)[:-9], 9, "line 10"),
    "an array": (lambda good: b"[" + b",".join(good) + b"]", 10, 10),
    "an array cut short": (lambda good: b"[" + b",\n".join(good), "array must be whole", "array must be whole"),
    "a truncated gzip": (lambda good: gzip.compress(b"\n".join(good))[:-9], "gzipped file must be whole", "gzipped"),
    "a gzip with a flipped bit": (lambda good: _flipped(gzip.compress(b"\n".join(good))), "gzipped", "gzipped"),
    "depth 100,000": (lambda good: b"\n".join([*good, b"[" * 100_000]), 10, "line 11"),
    "a number of 5,000 digits": (lambda good: b"\n".join([*good, b'{"chosen": ' + b"9" * 5000 + b"}"]), 10, "line 11"),
    "a NUL": (lambda good: b"\n".join([*good, b"\0"]), 10, "line 11"),
}


def _flipped(data: bytes) -> bytes:
    spoilt = bytearray(data)
    spoilt[-6] ^= 1  # in the checksum
    return bytes(spoilt)


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path, count: Counter) -> None:
    """A file of rows in any encoding, packing or state of damage is read to the last good row, or refused in words that
    name line or cause."""
    spoil, pairs, table = FILES[name]
    path = tmp_path / "rows.jsonl"
    for what, good, reader, expected in (
        ("pairs", [pair(i) for i in TEN], lambda p: len(read_pairs(p).rows), pairs),
        ("log-probabilities", [logp(i) for i in TEN], lambda p: len(read(p)), table),
        ("prompts", [logp(i) for i in TEN], lambda p: len(read_prompts(p)), pairs),
    ):
        path.write_bytes(spoil(good))
        with count(f"rows: {what}").trial():
            if isinstance(expected, int):
                assert reader(path) == expected
            else:
                with pytest.raises(InputError, match=expected) as caught:
                    reader(path)
                assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


def test_rows_that_are_no_pairs(tmp_path: Path, count: Counter) -> None:
    """Empty, null, repeated (30 %), endless (10 MB), half-surrogate and contradicting rows are dropped, each for a
    reason that is counted with its first lines; none is cut, none stops the others."""
    odd = {
        "empty chosen": pair(0, chosen=" \n"), "null rejected": pair(0, rejected=None), "without chosen": b"{}",
        f"a cell longer than {MAX_CELL} characters": pair(0, chosen="x" * 10_000_000),
        "longer than a line may be": pair(0, chosen="x" * 17_000_000),
        "half a surrogate pair, which is no text": b'{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}',
        "chosen and rejected the same": pair(0, chosen="a", rejected="a"),
        "chosen neither text nor messages": pair(0, chosen=3),
        "confidence outside 0.5 to 1": pair(0, confidence=10**400),
        "contradicting labels (the same pair both ways round)": pair(0, chosen="no 0", rejected="yes 0"),
    }  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join([*(pair(i) for i in range(70)), *(pair(i + 40) for i in range(30)), *odd.values()]))
    found = read_pairs(path)
    with count("rows: pairs").trial():
        assert len(found.rows) == 69
        assert found.counts.dropped["repeats an earlier row"].count == 30
        assert {reason: found.counts.dropped[reason].count for reason in odd} == dict.fromkeys(odd, 1) | {
            "contradicting labels (the same pair both ways round)": 2
        }
        assert found.counts.total == 100 + len(odd)


CHILD = """
import json, sys, time
from pathlib import Path
from alignfirst.auditing.logprob_table import read
from alignfirst.data.pairs import read_pairs
from alignfirst.errors import InputError
begin = time.process_time()
reader = {"pairs": read_pairs, "log-probabilities": read}[sys.argv[1]]
try:
    said = str(len(getattr(reader(Path(sys.argv[2])), "rows", [])))
except InputError as e:
    said = "refused: " + str(e)
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([said, peak, time.process_time() - begin]))
"""


def write(path: Path, rows: Iterator[bytes], size: int) -> None:
    with open(path, "wb") as f:
        while f.tell() < size:
            f.write(b"\n".join(next(rows) for _ in range(10_000)) + b"\n")


def endless(row: Callable[[int], bytes]) -> Iterator[bytes]:
    i = 0
    while True:
        yield row(i)
        i += 1


def measured(what: str, path: Path) -> tuple[str, float, float]:
    """What reading a file in a process of its own says, the megabytes at its peak, and seconds of CPU."""
    arguments = [sys.executable, "-c", CHILD, what, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said, megabytes, seconds = json.loads(done.stdout)
    return said, megabytes, seconds


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
def test_a_column_of_its_own_in_every_row(tmp_path: Path, count: Counter) -> None:
    """Rows of which each brings columns of its own take memory by the row, not by rows times columns."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(logp(i, **{f"column {i}": 0}) for i in range(20_000)))
    with count("rows: log-probabilities").trial():
        said, megabytes, _ = measured("log-probabilities", path)
        assert said == "0" and megabytes < 512
        assert len(read(path).notes[0]) < 1000


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("what", "row"), [("pairs", pair), ("log-probabilities", logp)])
def test_two_gigabytes(what: str, row: Callable[[int], bytes], tmp_path: Path, count: Counter) -> None:
    """Two gigabytes of rows take less than one of memory: they are refused as soon as they would take more, with the
    number of rows that can be read."""
    stat = os.statvfs(tmp_path)
    if stat.f_bavail * stat.f_frsize < 3 << 30:
        pytest.skip("needs 3 GB of disk")
    path = tmp_path / "rows.jsonl"
    write(path, endless(row), 2 << 30)
    with count(f"rows: 2 GB of {what}").trial():
        said, megabytes, seconds = measured(what, path)
        path.unlink()
        count(f"rows: 2 GB of {what}").most(megabytes=megabytes, cpu_seconds=seconds)
        assert said.startswith(f"refused: {what} must fit into memory"), said
        assert megabytes < 1024


def test_a_little_file_that_unpacks_to_a_lot(tmp_path: Path, count: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzipped file that unpacks to far more than it looks is refused, and takes neither memory nor hours."""
    monkeypatch.setattr("alignfirst.data.row_files.MAX_FILE", 4 << 20)
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as f:
        for _ in range(40):
            f.write(b"\n" * (1 << 20))
    begin = time.process_time()
    with count("rows: packed").trial(), pytest.raises(InputError, match=r"at most 0 GB, unpacked"):
        read_pairs(path)
    assert time.process_time() - begin < 60
