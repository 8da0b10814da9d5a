"""A preference file far larger than memory, before a training of one's own models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import Count

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

LM = Path(__file__).parents[1] / "lm"
sys.path.insert(0, str(LM))
import own_models as made

MEGABYTES = int(os.environ.get("ALIGNFIRST_ROWS_MB", "2048"))  # a smaller file for a quick look
LETTERS = "abcdefghij"
NOTE = "x" * 3_500  # of other columns, which most files have: the tokenizer is not what is tried here

CHILD = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import own_models as made
from alignfirst.study import dry_run
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of
begin = time.process_time()
study = made.study(Path("teacher"), Path("large.jsonl"))
found = dry_run.dry_run(study, Path("run")).preflight.data["data"]
known = resolve_inputs(study)
last = rows_of(known.data, known.index, known.loaded_tokenizer).read([0, found["kept"] - 1])
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([found, [row.line for row in last], peak, time.process_time() - begin]))
"""


def row(n: int) -> bytes:
    """Every row another one, and every hundredth one damaged."""
    if n % 100 == 50:
        return b'{"prompt": "cut sh'
    digits = " ".join(LETTERS[int(d)] for d in str(n))
    return json.dumps({"prompt": digits, "chosen": " a" * 9, "rejected": " b" * 9, "note": NOTE}).encode()


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
def test_two_gigabytes_of_pairs(tmp_path: Path, count: Callable[[str], Count]) -> None:
    """Two gigabytes of preference pairs are counted row by row before a training, in less than one of memory, and rows
    are found again at their places."""
    space = os.statvfs(tmp_path)
    if space.f_bavail * space.f_frsize < (MEGABYTES + 1024) << 20:
        pytest.skip(f"needs {MEGABYTES + 1024} MB of disk")
    made.teacher(tmp_path / "teacher")
    total = 0
    with open(tmp_path / "large.jsonl", "wb") as f:
        while f.tell() < MEGABYTES << 20:
            f.write(b"".join(row(n) + b"\n" for n in range(total, total + 10_000)))
            total += 10_000
    with count("rows: 2 GB of pairs for a training").trial():
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(LM)], capture_output=True, text=True, cwd=tmp_path, timeout=3_000,
            env=os.environ | {"ALIGNFIRST_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        (tmp_path / "large.jsonl").unlink()
        assert done.returncode == 0, done.stderr
        found, lines, megabytes, seconds = json.loads(done.stdout)
        count("rows: 2 GB of pairs for a training").most(megabytes=megabytes, cpu_seconds=seconds)
        lost = total // 100
        assert (found["rows"], found["kept"]) == (total, total - lost)
        assert found["dropped"] == {"not JSON": {"count": lost, "lines": [51, 151, 251, 351, 451]}}
        assert lines == [1, total]
        assert megabytes < 1024
