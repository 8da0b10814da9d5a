"""`manifest.json`: what a run directory holds, how the run ended, and digests of what it wrote."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignfirst import records
from alignfirst.files import sealed

MANIFEST_VERSION = 2  # 1 had no digest of its own
LIBRARIES = ("numpy", "scipy", "numba", "safetensors")


class Manifest(BaseModel):
    """The entries of a manifest, in the order of the file; what may be None comes before a run knows better.

    `counts`: cells, rows and nodes by what became of them. `varied`: dotted keys. `digests`: SHA-256 by name of a file,
    None for one that is not there. `started`, `finished`: UTC, ISO 8601. `seconds` of the last call.
    """

    model_config = ConfigDict(strict=True, extra="allow")  # a later version may say more

    manifest_version: int = MANIFEST_VERSION
    schema_version: int = records.SCHEMA_VERSION
    name: str
    preset: str
    world: str
    version: str
    command: str | None = None
    plan_digest: str | None = None
    status: str
    counts: dict[str, int]
    varied: list[str]
    seeds: list[int]
    digests: dict[str, str | None]
    hardware: dict[str, Any]
    started: str
    finished: str | None = None
    seconds: Annotated[float, Field(ge=0, lt=1e12)] | None = None


def flaw(found: object) -> str | None:
    """Why what was read is no manifest that a run wrote; None where it is one. It is sealed by a digest of its own.

    Whoever made a directory can also seal it, so what readers count on is looked at, too.
    """
    if not isinstance(found, dict):
        return "it holds no JSON object"
    unsealed = found.get("manifest_version") == 1 and "digest" not in found
    if not unsealed and found != sealed(found):
        return "its own digest differs"
    try:
        Manifest.model_validate(found)
    except ValidationError as e:
        return f"its {e.errors(include_url=False, include_input=False)[0]['loc'][0]} cannot be"
    return None


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def hardware() -> dict[str, Any]:
    """Machine and library versions, for the record; nothing here changes a result's identity."""
    from alignfirst.study.execution.options import available_cores

    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    machine = {"machine": platform.machine(), "system": platform.system(), "cpu": _cpu(), "cores": available_cores()}
    return machine | {"python": platform.python_version()} | versions


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
