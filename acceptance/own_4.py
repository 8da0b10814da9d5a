"""Damaged preference files, 23 kinds of damaged rows and 6 of whole files: each row is counted under its reason with
its line, all others are kept, exit code 0; with --strict, and where nothing is left to train on, exit code 2. Half a
minute.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

from common import ROOT, RUNS, cli, conclude, fresh

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import own_models as made
from test_own_data import DAMAGED, GOOD
from typer.testing import CliRunner, Result

from alignfirst.cli.app import app

folder = fresh(RUNS / "own-4")
os.environ["ALIGNFIRST_CACHE"] = str(folder / "cache")
teacher = made.teacher(folder / "teacher", made.TEMPLATE)
failures: list[str] = []


def arguments(data: Path, *more: str) -> list[str]:
    values = {"data.pairs": data, "teacher.model": teacher, "student.layers": 2, "data.chat": "false",
              "distil.new_tokens": 6, "measure.new_tokens": 6}  # fmt: skip
    sets = [x for name, value in values.items() for x in ("--set", f"{name}={value}")]
    return ["run", "hf-dpo", *sets, "--out", str(folder / "run"), "--dry-run", *more]


def dry(data: Path, *more: str) -> Result:
    """The command line inside this process: torch is imported once."""
    return CliRunner().invoke(app, arguments(data, *more))


def listed(lines: list[int]) -> str:
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"


def rows_damaged(kind: str, rows: list[Any], reasons: dict[str, list[int]]) -> None:
    data = made.write(folder / "pairs.jsonl", [*GOOD, *rows])
    told, strict = dry(data, "--json"), dry(data, "--strict")
    wanted = {reason: {"count": len(lines), "lines": lines} for reason, lines in reasons.items()}
    found = json.loads(told.stdout)["preflight"]["data"] if told.exit_code == 0 else {}
    lost, total = sum(map(len, reasons.values())), len(GOOD) + len(rows)
    right = (
        found.get("dropped") == wanted
        and (found["rows"], found["kept"]) == (total, total - lost)
        and strict.exit_code == 2
        and all(
            f"dropped {len(lines)}: {reason} ({listed(lines)})" in strict.output for reason, lines in reasons.items()
        )
    )
    said = "; ".join(f"{c['count']} {reason} ({listed(c['lines'])})" for reason, c in found.get("dropped", {}).items())
    print(
        f"{kind:20s} exit {told.exit_code}, strict {strict.exit_code}: {total} read, {found.get('kept')} kept, {said}"
    )
    if not right:
        failures.append(f"{kind}: {told.exit_code} {found}, strict {strict.exit_code} {strict.output[-400:]}")


def file_damaged(kind: str, words: str, content: bytes | None, name: str) -> None:
    data = folder / name
    data.unlink(missing_ok=True)
    if content is not None:
        data.write_bytes(content)
    done = dry(data)
    print(f"{kind:20s} exit {done.exit_code}: {done.output.strip()[:100]}")
    if done.exit_code != 2 or words not in done.output or not done.output.startswith("error: "):
        failures.append(f"{kind}: exit {done.exit_code}, {done.output[-400:]}")


for kind, (rows, reasons) in DAMAGED.items():
    rows_damaged(kind, rows, reasons)
good = b"".join(json.dumps(row).encode() + b"\n" for row in GOOD)
file_damaged("no file", "data must be there", None, "none.jsonl")
file_damaged("an empty file", "at least one row must be usable", b"", "empty.jsonl")
file_damaged("nothing but damage", "at least one row must be usable", b"{]\n" * 9, "all.jsonl")
file_damaged("one prompt alone", "there must be rows", good.splitlines()[0] * 1, "one.jsonl")
file_damaged("a cut gzip", "a gzipped file must be whole", gzip.compress(good)[:-20], "cut.jsonl.gz")
file_damaged("no Parquet", "the file must be Parquet", good, "text.parquet")
shell = cli(*arguments(folder / "all.jsonl"), cwd=folder)  # once as a process: what a shell sees
print(f"{'in a shell':20s} exit {shell.returncode}: {shell.stderr.strip()[:100]}")
if shell.returncode != 2 or shell.stdout or "Traceback" in shell.stderr:
    failures.append(f"in a shell: {shell.returncode} {shell.stderr[-500:]}")
print(f"{len(DAMAGED) + 6} kinds of damage")
conclude(failures + [f"only {len(DAMAGED)} kinds of rows"] * (len(DAMAGED) < 20))
