"""Files beside an audit: prompts and examples that it reads, and the rows that it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst import files
from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.auditing.collect import Collected
    from alignfirst.data.pairs import Message, Text

ROWS = "log_probs.jsonl"
DIGEST = "log_probs_sha256"  # of the file that the texts of rows are in


def sha256_of(path: Path) -> str:
    """By it the page knows that a file of rows is still the one that was audited."""
    with files.reading(path), open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_prompts(path: Path, limit: int | None = None) -> list[tuple[int, Text, Mapping[str, Any]]]:
    """(line, prompt, whole row) of JSON lines with `prompt`: text or messages. Raises InputError naming the line."""
    from alignfirst.data.row_files import raw_lines

    if not path.is_file():
        raise InputError("prompts must be in a file", str(path), "JSON lines with `prompt`.")
    found: list[tuple[int, Text, Mapping[str, Any]]] = []
    for line, raw in enumerate(raw_lines(path), 1):
        if limit is not None and len(found) == limit:
            break
        if raw is None or not raw.strip():
            continue
        try:
            row = json.loads(raw)
            found.append((line, _text(row["prompt"]), row))
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            cure = "Write JSON lines, each with `prompt`: text, or messages with role and content."
            raise InputError("every line must hold a prompt", f"line {line}: {e}", cure) from e
    if not found:
        raise InputError("there must be at least one prompt", f"{path}, an empty file", "One JSON object a line.")
    return found


def read_examples(path: Path) -> list[tuple[int, Text, Text]]:
    """(line, prompt, response) of JSON lines with `prompt` and `response` (or `chosen`)."""
    found = []
    for line, prompt, row in read_prompts(path):
        answer = row.get("response", row.get("chosen"))
        if answer is None:
            raise InputError("a target example has a response", f"none in line {line}", "Name it `response`.")
        found.append((line, prompt, _text(answer)))
    return found


def _text(value: Any) -> Text:
    from alignfirst.data.pairs import Message

    if isinstance(value, str):
        return value
    messages: tuple[Message, ...] = tuple(Message(str(m["role"]), str(m["content"])) for m in value)
    return messages


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
