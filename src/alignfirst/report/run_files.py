"""A run directory as a report needs it: read once, and only what the run itself wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignfirst import records
from alignfirst.errors import StoreError, shorten
from alignfirst.files import json_lines
from alignfirst.records import Row
from alignfirst.report.sentences.varied_keys import Varied, named
from alignfirst.study.output.manifest import flaw

VERIFIED = ("config.yaml", "records.jsonl", "statistics.json", "exhibits.json")
CURE = "Run the same command again to rebuild it: what is stored is reused."


@dataclass(frozen=True)
class RunFiles:
    """Everything that a report shows. The numbers in it are shown or counted, never computed anew."""

    path: Path
    manifest: Mapping[str, Any]
    config: str
    rows: list[Row]
    statistics: Mapping[str, Any]
    exhibits: Mapping[str, Any]
    timings: list[dict[str, Any]]
    identity: str  # digest of all that was read

    @cached_property
    def varied(self) -> list[str]:
        return list(self.manifest.get("varied") or [])

    @cached_property
    def names(self) -> list[Varied]:
        """The varied keys as the report calls them."""
        return named(self.varied, self.rows)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        return dict(self.manifest.get("counts") or {})


def load(run_dir: Path) -> RunFiles:
    """Read a run directory. Raises StoreError where a file is missing, damaged or not the one that the run wrote."""
    manifest_bytes = _bytes(run_dir / "manifest.json")
    manifest = json_object(manifest_bytes, run_dir / "manifest.json")
    if what := flaw(manifest):
        raise StoreError(f"{run_dir / 'manifest.json'} is not what the run wrote ({what}). {CURE}")
    _refuse_other_schema(run_dir, manifest)
    digests = manifest["digests"]
    content = {name: _verified(run_dir / name, digests.get(name)) for name in VERIFIED}
    timings_path = run_dir / "timings.jsonl"
    timings = timings_path.read_bytes() if timings_path.exists() else b""
    every = [manifest_bytes, timings, *content.values()]
    return RunFiles(
        path=run_dir,
        manifest=manifest,
        config=content["config.yaml"].decode(errors="replace"),
        rows=records.read(run_dir / "records.jsonl", digests.get("records.jsonl")),
        statistics=json_object(content["statistics.json"], run_dir / "statistics.json"),
        exhibits=json_object(content["exhibits.json"], run_dir / "exhibits.json"),
        timings=json_lines(timings),
        identity=hashlib.sha256(b"".join(hashlib.sha256(b).digest() for b in every)).hexdigest(),
    )


def _refuse_other_schema(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Columns mean what their version says: those of another one are not shown as if they were these."""
    found, ours = manifest.get("schema_version"), records.SCHEMA_VERSION
    if found == ours:
        return
    writer = f"{run_dir} was written by alignfirst {shorten(str(manifest.get('version')), 20)}"
    cure = f"Read it with that version, or with this one: {CURE[0].lower()}{CURE[1:]}"
    raise StoreError(f"{writer} with version {shorten(str(found), 20)} of the records, this one reads {ours}. {cure}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise StoreError(
            f"{path} cannot be read ({e.strerror or e}). A report needs a run: alignfirst run PRESET --out DIR"
        ) from e


def _verified(path: Path, sha256: str | None) -> bytes:
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(f"{path} is not what the run wrote (its digest differs from manifest.json). {CURE}")
    return data


def json_object(data: bytes, path: Path, cure: str = CURE) -> dict[str, Any]:
    """The object that a file holds. Raises StoreError, with `cure`, where it holds none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise StoreError(f"{path} is not valid JSON ({e}). {cure}") from e
    if not isinstance(value, dict):
        raise StoreError(f"{path} does not hold a JSON object. {cure}")
    return value
