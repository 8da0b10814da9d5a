"""The page of an audit: one offline file in the shell of the study's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignfirst.auditing.constants import LEVEL, MIN_ESS
from alignfirst.report.audit.audit_files import Findings
from alignfirst.report.audit.series import missing, payload
from alignfirst.report.audit.verdict_card import card
from alignfirst.report.offline_page import Layout, assemble
from alignfirst.report.page_sections import Section
from alignfirst.report.sentences import words
from alignfirst.stats.intervals import level_words
from alignfirst.version import __version__

LAYOUT = Layout(
    "audit.html.j2",
    styles=("page", "figure", "verdict", "audit", "screens"),
    scripts=("shell", "audit", "start_audit.js"),
)
SECTIONS = [
    Section(id, name)
    for id, name in (
        ("verdict", "Verdict"), ("tilt", "Over beta"), ("hits", "Hits and rollouts"), ("coverage", "Coverage"),
        ("scatter", "Chosen and rejected"), ("cost", "What distilling cost"), ("rows", "Worst rows"),
        ("calibration", "Evidence"), ("provenance", "Provenance"),
    )
]  # fmt: skip
ABSENT = Section("absent", "Not in this audit")


def page(found: Findings) -> str:
    """The whole page. Raises StoreError where even the thinnest form does not fit the size of a page."""
    absent = missing(found)
    context = {
        "sections": _sections(absent), "version": __version__, "level": level_words(LEVEL), "min_draws": MIN_ESS,
        "missing": absent, "absent": _absent(absent), **_context(found),
    }  # fmt: skip
    return assemble(LAYOUT, context, lambda most_bytes: payload(found, most_bytes))


def _sections(absent: Mapping[str, str]) -> list[Section]:
    """What the page has; all that it has not stands together near its end."""
    there = [section for section in SECTIONS if section.id not in absent]
    return [*there[:-1], ABSENT, there[-1]] if absent else there


def _absent(absent: Mapping[str, str]) -> list[tuple[str, str]]:
    """Sections that have nothing to show, together where they share the reason."""
    names: dict[str, list[str]] = {}
    for section in SECTIONS:
        if section.id in absent:
            names.setdefault(absent[section.id], []).append(section.name)
    return [(", ".join(same), words.tight(words.shown(why))) for why, same in names.items()]


def _context(found: Findings) -> dict[str, Any]:
    plain = found.plain
    about = dict(plain.get("about") or {})
    context = {
        "title": plain.get("title") or "reference",
        "card": card(plain),
        "marked": any(row.get("costliest_tokens") for row in (found.pairs or {}).get("worst") or ()),
        "about": [(key.replace("_", " "), value) for key, value in about.items() if not isinstance(value, dict)],
        "tokenising": dict(about.get("tokenising") or {}),
        "read": _read(about.get("pairs")),
        "notes": list(plain.get("notes") or []),
        "constants": plain.get("constants"),
        "digest": found.digest,
    }
    result: dict[str, Any] = words.shown(context)
    return result


def _read(pairs: Any) -> list[tuple[str, str]]:
    """What became of the rows of a file of pairs."""
    if not isinstance(pairs, dict):
        return []
    facts = [("rows", f"{pairs.get('kept')} of {pairs.get('rows')} kept")]
    for name in ("dropped", "notes"):
        for reason, counted in (pairs.get(name) or {}).items():
            lines = words.listed(str(n) for n in counted.get("lines") or ())
            facts.append((name, f"{counted.get('count')}: {reason} (lines {lines})"))
    return facts
