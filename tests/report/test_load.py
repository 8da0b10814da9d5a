from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alignfirst.errors import StoreError
from alignfirst.report import build
from alignfirst.report.run_files import VERIFIED, load


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(built, tmp_path / "run"))


@pytest.mark.parametrize("name", VERIFIED)
def test_a_changed_file_is_refused_with_a_cure_and_the_old_page_stays(run: Path, name: str) -> None:
    page = (run / "report.html").read_bytes()
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(StoreError, match=rf"{name} is not what the run wrote.*Run the same command again"):
        build(run)
    assert (run / "report.html").read_bytes() == page


@pytest.mark.parametrize("name", ["manifest.json", *VERIFIED])
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(StoreError, match=rf"{name} cannot be read.*A report needs a run"):
        load(run)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"digests": 3}'])
def test_a_damaged_manifest_is_refused(run: Path, text: str) -> None:
    (run / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        load(run)


def test_a_timing_cut_short_by_a_crash_costs_only_itself(run: Path) -> None:
    path = run / "timings.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines) + '\n{"kind": "al')
    assert len(load(run).timings) == len(lines)
    path.unlink()
    assert load(run).timings == []


def test_a_page_that_cannot_be_written_leaves_nothing_half_done(run: Path) -> None:
    (run / "summary.md").unlink()
    (run / "summary.md").mkdir()
    before = sorted(p.name for p in run.iterdir())
    with pytest.raises(StoreError, match=r"summary\.md cannot be written"):
        build(run)
    assert sorted(p.name for p in run.iterdir()) == before


def test_reading_takes_what_the_run_wrote(built: Path) -> None:
    run = load(built)
    assert run.manifest["name"] == "mog"
    assert run.statistics == json.loads((built / "statistics.json").read_text())
    assert len(run.rows) == run.counts["rows"]
