"""The page of an audit: one offline file in the shell of the study's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plotly.offline import get_plotlyjs

from alignfirst.auditing.constants import LEVEL, MIN_ESS
from alignfirst.errors import StoreError
from alignfirst.report.audit.audit_files import Findings
from alignfirst.report.audit.series import missing, payload
from alignfirst.report.audit.verdict_card import card
from alignfirst.report.html import HEAD, MOST_BYTES, embedded, environment, joined, policy, script, static, styles
from alignfirst.report.sections import Section
from alignfirst.report.sentences import words
from alignfirst.stats.intervals import level_words
from alignfirst.version import __version__

STYLES = ("page", "figure", "verdict", "audit", "screens")
SCRIPTS = ("shell", "audit", "start_audit.js")
SECTIONS = (
    Section("verdict", "Verdict"),
    Section("tilt", "Over beta"),
    Section("hits", "Hits and rollouts"),
    Section("coverage", "Coverage"),
    Section("scatter", "Chosen and rejected"),
    Section("cost", "What distilling cost"),
    Section("rows", "Worst rows"),
    Section("calibration", "Evidence"),
    Section("provenance", "Provenance"),
)
ABSENT = Section("absent", "Not in this audit")


def page(found: Findings) -> str:
    """The whole page. Raises StoreError where even the thinnest form does not fit the size of a page."""
    scripts = [script(get_plotlyjs()), script(joined(SCRIPTS))]
    head = script(static(HEAD))
    absent = missing(found)
    fixed = {
        "css": styles(STYLES), "head": head, "scripts": scripts, "sections": _sections(absent),
        "policy": policy([head, *scripts]), "version": __version__,
        "level": level_words(LEVEL), "min_draws": MIN_ESS, "missing": absent, "absent": _absent(absent),
        **_context(found),
    }  # fmt: skip
    template = environment().get_template("audit.html.j2")
    bare = len(template.render(**fixed, data="", left_out=[]).encode())
    data = payload(found, MOST_BYTES - bare - 2_000)
    text = template.render(**fixed, data=embedded(data), left_out=data["left_out"])
    if len(text.encode()) > MOST_BYTES:
        raise StoreError(
            f"the page of this audit would be larger than {MOST_BYTES // 1_000_000} MB even in its thinnest form. "
            "Its numbers are in audit.json; audit fewer rows (--rows) to see them drawn."
        )
    return text


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
