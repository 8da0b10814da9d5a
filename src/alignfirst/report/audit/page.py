"""The page of an audit: one offline file in the shell of the study's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plotly.offline import get_plotlyjs

from alignfirst.errors import StoreError
from alignfirst.report.audit.audit_files import Findings
from alignfirst.report.audit.series import missing, payload
from alignfirst.report.audit.verdict_card import card
from alignfirst.report.html import HEAD, MOST_BYTES, embedded, environment, joined, policy, script, static
from alignfirst.report.sentences import words
from alignfirst.version import __version__

STYLES = ("page.css", "figure.css", "verdict.css", "audit.css", "screens.css")
SCRIPTS = (
    "core.js", "theme.js", "controls.js", "figure.js", "audit.js", "audit_tilt.js", "audit_hits.js", "audit_rows.js",
    "audit_evidence.js", "shell.js", "audit_main.js",
)  # fmt: skip
SECTIONS = (
    ("verdict", "Verdict"), ("tilt", "Over beta"), ("hits", "Hits and rollouts"), ("coverage", "Coverage"),
    ("scatter", "Chosen and rejected"), ("cost", "What distilling cost"), ("rows", "Worst rows"),
    ("calibration", "Evidence"), ("provenance", "Provenance"),
)  # fmt: skip
ABSENT = "absent"


def page(found: Findings) -> str:
    """The whole page. Raises StoreError where even the thinnest form does not fit the size of a page."""
    scripts = [script(get_plotlyjs()), script(joined(SCRIPTS))]
    head = script(static(HEAD))
    absent = missing(found)
    fixed = {
        "css": "\n".join(static(n) for n in STYLES), "head": head, "scripts": scripts, "sections": _sections(absent),
        "policy": policy([head, *scripts]), "version": __version__, "missing": absent, "absent": _absent(absent),
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


def _sections(absent: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the page has; all that it has not stands together near its end."""
    there = [(i, name) for i, name in SECTIONS if i not in absent]
    return [*there[:-1], (ABSENT, "Not in this audit"), there[-1]] if absent else there


def _absent(absent: Mapping[str, str]) -> list[tuple[str, str]]:
    """Sections that have nothing to show, together where they share the reason."""
    names: dict[str, list[str]] = {}
    for i, name in SECTIONS:
        if i in absent:
            names.setdefault(absent[i], []).append(name)
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
