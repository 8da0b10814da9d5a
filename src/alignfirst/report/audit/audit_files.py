"""The files of an audit: its findings written, and read again as its page needs them, never computed anew."""

from __future__ import annotations

import hashlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst.auditing.logprob_table import DIGEST, ROWS
from alignfirst.errors import AlignfirstError, StoreError, printable
from alignfirst.files import write_atomic, writing
from alignfirst.report import AUDIT
from alignfirst.report.run_files import json_object

if TYPE_CHECKING:
    from alignfirst.auditing.findings import Audit

SUMMARY = "audit.txt"
READS = 1  # the audit_version that this page knows
CURE = "Run the same audit again: what was scored is not scored twice."


@dataclass(frozen=True)
class Findings:
    """An audit with the texts of its rows.

    `texts`: line of the row -> chosen answer; `evidence`: what ships with the package, {} where nothing does.
    """

    path: Path
    plain: Mapping[str, Any]
    digest: str
    evidence: Mapping[str, Any]
    texts: Mapping[int, str]

    @property
    def plans(self) -> list[dict[str, Any]]:
        return list(self.plain.get("plans") or [])

    @property
    def pairs(self) -> Mapping[str, Any] | None:
        return self.plain.get("pairs")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Preference rows in the order of the file."""
        return list((self.pairs or {}).get("every") or [])


def write(audit: Audit, folder: Path) -> None:
    """Write audit.json and audit.txt in a folder, which is made. Raises StoreError."""
    from alignfirst.auditing.sentences import lines

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / AUDIT, [_by_key(audit.plain()).encode()])
    write_atomic(folder / SUMMARY, ["".join(f"{printable(line)}\n" for line in lines(audit)).encode()])


def _by_key(plain: Mapping[str, Any]) -> str:
    """JSON with one key a line: as fast as without line breaks, where indenting 100,000 rows takes seconds."""
    parts = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in plain.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


def load(folder: Path) -> Findings:
    """Read the result of an audit.

    Raises StoreError where audit.json is missing, damaged or of a version that this page does not know.
    """
    path = folder / AUDIT
    try:
        data = path.read_bytes()
    except OSError as e:
        raise StoreError(f"{path} cannot be read ({e.strerror or e}). Write it: alignfirst audit ... --out DIR") from e
    plain = json_object(data, path, CURE)
    if plain.get("audit_version") != READS:
        raise StoreError(f"{path} has audit_version {plain.get('audit_version')!r}; this page knows {READS}. {CURE}")
    found = Findings(folder, plain, hashlib.sha256(data).hexdigest(), evidence(), {})
    return replace(found, texts=_texts(found)) if found.rows else found


def evidence() -> Mapping[str, Any]:
    """The evidence behind the audit's constants that ships with the package; {} where there is none."""
    try:
        data = pkgutil.get_data("alignfirst.auditing", "evidence.json")
    except OSError:
        return {}
    return {} if data is None else json_object(data, Path("auditing") / "evidence.json", CURE)


def _texts(found: Findings) -> dict[int, str]:
    """Chosen answers by the line of their row, from the file of rows that was audited; {} where it is gone or another.

    Texts are a convenience: nothing is refused for lack of them. Rows that the audit of a model wrote are known by
    their `pair_id`, which is the line in the file of pairs.
    """
    from alignfirst.data.sources import table_of

    about = found.plain.get("about") or {}
    given = about.get("log_probs")
    path = found.path / ROWS if given is None else Path(given)
    try:
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != about.get(DIGEST):
            return {}
        rows, lines = table_of(path)
    except (AlignfirstError, OSError):
        return {}
    named = zip(lines if given is not None else [row.get("pair_id") for row in rows], rows, strict=True)
    texts = ((n, row.get("text")) for n, row in named if row.get("kind") == "chosen")
    return {n: text for n, text in texts if isinstance(n, int) and isinstance(text, str)}
