"""`alignfirst presets`: what can be run without writing a file."""

from __future__ import annotations

from alignfirst.cli import out


def presets(json: out.Json = False) -> None:
    """List the studies that come with the package."""
    from alignfirst.study.config import preset_files as studies

    configs = [studies.load(name) for name in studies.names()]
    if json:
        out.as_json([{"name": c.name, "world": c.world, "description": c.description} for c in configs])
        return
    out.table(("preset", "what it asks"), [(c.name, c.description) for c in configs])
    out.line("alignfirst show PRESET prints every key; alignfirst run PRESET runs it.")
