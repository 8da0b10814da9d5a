"""`alignfirst status`: how one run stands, and whether its files are those that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignfirst.cli import out
from alignfirst.cli.commands.ls import summary
from alignfirst.cli.places import RunPath, run_path
from alignfirst.errors import AlignfirstError


def status(run: RunPath, json: out.Json = False) -> None:
    """Show how a run stands."""
    from alignfirst.study.output.run_dir import RunDir

    path = run_path(run)
    found = summary(path) | {"changed_files": _changed(path), "stored": None, "last": None}
    if found["status"] != "complete":
        found["stored"] = _stored(path)
        found["last"] = RunDir(path).last_event()
    if json:
        out.as_json(found)
        return
    out.line(f"{found['path']}: {found['status']}")
    for name, value in _lines(found):
        out.line(f"  {name:<9}", value)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("preset", found["preset"]), ("started", found["started"]), ("took", out.duration(found["seconds"]))]
    if found["counts"]:
        lines.append(("counts", ", ".join(f"{value} {name}" for name, value in found["counts"].items())))
    if found["stored"]:
        stored = found["stored"]
        left = f", about {out.duration(stored['seconds_left'])} of work left" if stored["steps"] < stored["of"] else ""
        lines.append(("stored", f"{stored['steps']} of {stored['of']} steps{left}"))
    if found["holder"]:
        lines.append(("held by", f"process {found['holder'].get('pid')} on {found['holder'].get('host')}"))
    if found["last"]:
        lines.append(("last", _event(found["last"])))
    if found["changed_files"]:
        cure = "run the same command again to rebuild them"
        lines.append(("damaged", f"{', '.join(found['changed_files'])}: {cure}"))
    elif found["status"] == "interrupted":
        lines.append(("next", "run the same command again to finish it"))
    return lines


def _event(event: dict[str, Any]) -> str:
    """The last line of the event log in words."""
    what = {
        "task": "{nodes} x {kind} {label} in {seconds} s",
        "failed": "{kind} {label} failed: {reason}",
        "end": "ended, {status}",
    }.get(str(event.get("event")), "{event}")
    return f"{event.get('time', '-')} {' '.join(what.format_map(_Known(event)).split())}"


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "-"


def _changed(path: Path) -> list[str]:
    """Files that are not as the manifest says; nothing to compare with before records were written."""
    from alignfirst.study.output.run_dir import RunDir

    run_dir = RunDir(path)
    manifest = run_dir.manifest()
    if manifest is None:
        return []
    digests = manifest.get("digests")
    written = digests if isinstance(digests, dict) else {}
    return [name for name in run_dir.changed(manifest) if written.get(name)]


def _stored(path: Path) -> dict[str, Any] | None:
    """How much of an unfinished run is in its store, and how many seconds the rest would take on all cores."""
    from alignfirst.study import dry_run
    from alignfirst.study.config import preset_files

    try:
        plan = dry_run.dry_run(preset_files.load(path / "config.yaml"), path)
    except AlignfirstError:
        return None
    return {"steps": plan.cached, "of": plan.nodes, "seconds_left": round(plan.seconds, 1)}
