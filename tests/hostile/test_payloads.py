"""Forty payloads in a terminal and in a table: shown as text, and as nothing else. Pages: tests/browser."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from ledger import Count
from payloads import FORMULAS, PAYLOADS
from typer.testing import CliRunner

from alignfirst import records
from alignfirst.cli.app import app
from alignfirst.files import sealed

Counter = Callable[[str], Count]


def test_there_are_forty() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) == 40


def steers(text: str) -> bool:
    return any(not (c.isprintable() or c == "\n") for c in text)


@pytest.mark.parametrize("payloads", [PAYLOADS[3::12], pytest.param(PAYLOADS, marks=pytest.mark.slow)], ids=len)
def test_terminals(
    synthetic: ModuleType, tmp_path: Path, count: Counter, monkeypatch: pytest.MonkeyPatch, payloads: tuple[str, ...]
) -> None:
    """No payload in a manifest, a key, a value, a path or an argument reaches the terminal unescaped."""
    counted, folder = count("markup: terminal"), synthetic.write(tmp_path / "runs" / "x", synthetic.Spec(seeds=1))
    monkeypatch.chdir(tmp_path)
    original = json.loads((folder / "manifest.json").read_text())
    for payload in payloads:
        with counted.trial():
            hostile = dict.fromkeys(("name", "preset", "status", "version", "started", "command"), payload)
            (folder / "manifest.json").write_text(json.dumps(sealed(original | hostile | {"counts": {payload: 1}})))
            for arguments in (
                ["ls"], ["status", "x"], ["status", "x", "--json"], ["run", payload], ["run", "mog", "--set", payload],
                ["run", "mog", "--dry-run", "--set", f"name={payload}"], ["show", payload], ["ls", payload], [payload],
                ["audit", "--reference", payload], ["audit", "--log-probs", payload], ["presets", payload],
            ):  # fmt: skip
                result = CliRunner().invoke(app, arguments)
                assert not steers(result.stdout + result.stderr), arguments
                assert "a fault of alignfirst" not in result.stderr, (arguments, result.stderr)


def test_tables(count: Counter) -> None:
    """A spreadsheet that opens records.csv finds text where there is text, no formula, and no row of its own making."""
    counted, names = count("markup: CSV"), records.columns([])
    for payload in (*PAYLOADS, *FORMULAS):
        with counted.trial():
            text = records.to_csv([dict.fromkeys(names) | {"error": payload}], names)
            (_, row) = csv.reader(io.StringIO(text, newline=""))
            cell = row[names.index("error")]
            assert cell == ("'" + payload if payload[0] in "=+-@\t\r\n" else payload)
            assert len(row) == len(names)
