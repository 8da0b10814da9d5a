"""Runs of other versions: read as what they are, or refused with the way out; never shown as if they were of today."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import content
from ledger import Count
from toy_world import ToyConfig

from alignfirst import report
from alignfirst.api import load
from alignfirst.errors import StoreError
from alignfirst.files import sealed
from alignfirst.records import SCHEMA_VERSION
from alignfirst.store import FORMAT, _name
from alignfirst.study.config import yaml_io
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.output.run_dir import RunDir
from alignfirst.study.runner import run

CONFIG: dict[str, Any] = {"seeds": 2, "algorithms": ["ppo"], "beta": [0.1, 0.2]}
Counter = Callable[[str], Count]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
    return out


def of_schema(whole: Path, out: Path, version: int) -> Path:
    """The same run as a version with another table of columns would have left it."""
    shutil.copytree(whole, out)
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    for row in rows:
        row["schema_version"] = version
        del row["trap"], row["flops"]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (out / "records.jsonl").write_text(text)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["digests"]["records.jsonl"] = hashlib.sha256(text.encode()).hexdigest()
    manifest |= {"schema_version": version, "version": "0.0.1", "plan_digest": "0" * 64}
    (out / "manifest.json").write_text(json.dumps(sealed(manifest)))
    return out


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1])
def test_records_of_another_schema(whole: Path, tmp_path: Path, count: Counter, version: int) -> None:
    """Records carry the version of their columns; those of an older or newer one are refused by whatever would show
    them, and the same command again rebuilds them from the store, computing nothing."""
    counted = count("versions: records")
    out = of_schema(whole, tmp_path / "run", version)
    with counted.trial(), pytest.raises(StoreError, match=rf"version {version} of the records, this one reads"):
        report.build(out)
    with counted.trial(), pytest.raises(StoreError, match=r"run the same command again to rebuild it"):
        _ = load(out).records
    with counted.trial():
        assert run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0)).counts["computed"] == 0
        assert content(out) == content(whole)
        assert {row["schema_version"] for row in load(out).records} == {SCHEMA_VERSION}


def test_a_config_of_an_earlier_version(whole: Path, tmp_path: Path, count: Counter) -> None:
    """A run directory stays that of its study when a later version knows more keys, or names them in another order."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "manifest.json").unlink()
    config = yaml_io.read(out / "config.yaml")
    del config["align"]["gain"], config["preferences"]
    (out / "config.yaml").write_text(yaml_io.dumps(dict(reversed(config.items()))))
    with count("versions: configs").trial():
        assert run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0)).counts["computed"] == 0
        assert content(out) == content(whole)


@pytest.mark.parametrize(("other", "cure"), [(FORMAT + 1, "Install a newer alignfirst"), (0, "Choose another --out")])
def test_a_store_of_another_format(whole: Path, tmp_path: Path, count: Counter, other: int, cure: str) -> None:
    """A store of another format is refused with the way out, and left as it is."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    header = json.dumps({"format": other, "entries": []}).encode() + b"\n"
    (out / "store" / _name(header)).write_bytes(header)
    (out / "manifest.json").unlink()
    before = sorted((out / "store").iterdir())
    with count("versions: stores").trial(), pytest.raises(StoreError, match=cure):
        run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0))
    assert sorted((out / "store").iterdir()) == before


def test_a_manifest_without_a_digest_of_its_own(whole: Path, tmp_path: Path, count: Counter) -> None:
    """Manifests of the version before they had a digest of their own are read."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["digest"]
    (out / "manifest.json").write_text(json.dumps(manifest | {"manifest_version": 1}))
    with count("versions: manifests").trial():
        assert RunDir(out).manifest() is not None
        assert run(ToyConfig(**CONFIG), out, ExecutionOptions(workers=0)).nothing_to_do
