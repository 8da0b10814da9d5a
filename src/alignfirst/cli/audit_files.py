"""The rows that an audit leaves beside its result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst import files

if TYPE_CHECKING:
    from alignfirst.auditing.collect import Collected

ROWS = "log_probs.jsonl"
DIGEST = "log_probs_sha256"  # of the file that the texts of rows are in


def sha256_of(path: Path) -> str:
    """By it the page knows that a file of rows is still the one that was audited."""
    with files.reading(path), open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_rows(found: Collected, folder: Path) -> str:
    """The table as JSON lines that --log-probs reads; their SHA-256."""
    import numpy as np

    from alignfirst.auditing.logprob_table import KINDS, SOURCES

    t = found.table
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(len(t)):
        row: dict[str, Any] = {"kind": KINDS[t.kind[i]], "prompt_id": t.prompt_names[t.prompt[i]]}
        row |= {"pair_id": int(t.line[i]), "logp_reference": float(t.logp_reference[i]), "tokens": int(t.tokens[i])}
        if t.source[i] >= 0:
            row["source"] = SOURCES[t.source[i]]
        for name, values in (("logp_teacher", t.logp_teacher), ("reward", t.reward), ("rarest_logp", t.rarest)):
            if np.isfinite(values[i]):
                row[name] = float(values[i])
        row |= {"rarest_at": int(t.rarest_at[i]), "text": t.text[i]}
        lines.append(json.dumps(row, allow_nan=False).encode() + b"\n")
    files.write_atomic(folder / ROWS, lines)
    return hashlib.sha256(b"".join(lines)).hexdigest()
