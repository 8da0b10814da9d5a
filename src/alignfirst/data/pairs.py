"""Preference pairs from a file: TRL's formats, every row kept or dropped for a counted reason, nothing cut.

Standard or conversational, with the prompt in its own column or as the common beginning of both answers (found as TRL's
`extract_prompt` finds it), and an optional `confidence` that the chosen answer is the better one. JSON lines, plain or
gzipped, read a line at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alignfirst.data.row_files import raw_lines
from alignfirst.errors import InputError

MAX_CELL = 1_000_000  # characters of one prompt or answer; longer ones are dropped, never cut
MAX_KEPT = 512 << 20  # bytes of rows that are held in memory at once, each with what holding one costs
HELD = 256  # bytes: objects, and the digest that finds repeats
FIRST_LINES = 5  # lines named per reason


class Message(NamedTuple):
    role: str
    content: str


Text = str | tuple[Message, ...]  # standard or conversational


class Pair(NamedTuple):
    """One kept row. Prompt and answers are all text or all messages; `line` counts from 1."""

    line: int
    prompt: Text
    chosen: Text
    rejected: Text
    confidence: float | None = None

    @property
    def conversational(self) -> bool:
        return not isinstance(self.prompt, str)


@dataclass
class Counted:
    """Rows that one reason befell."""

    every: list[int] = field(default_factory=list)  # lines

    @property
    def count(self) -> int:
        return len(self.every)

    @property
    def lines(self) -> list[int]:
        """The first five."""
        return sorted(self.every)[:FIRST_LINES]


@dataclass(frozen=True)
class Pairs:
    """Kept rows in the order of the file, and what became of the others. `notes` counts what is odd but kept."""

    rows: tuple[Pair, ...]
    total: int
    dropped: Mapping[str, Counted]
    notes: Mapping[str, Counted]

    def plain(self) -> dict[str, Any]:
        """For JSON: counts by reason, the first lines of each."""
        found: dict[str, Any] = {"rows": self.total, "kept": len(self.rows)}
        for name, counted in (("dropped", self.dropped), ("notes", self.notes)):
            found[name] = {k: {"count": d.count, "lines": d.lines} for k, d in sorted(counted.items())}
        return found

    def summary(self) -> str:
        """One line: how many were kept, and why others were not."""
        why = ", ".join(f"{d.count} {reason} (line {_listed(d.lines)})" for reason, d in _by_count(self.dropped))
        return f"{len(self.rows)} of {self.total} rows kept" + (f"; dropped: {why}" if why else "")


def _by_count(counted: Mapping[str, Counted]) -> list[tuple[str, Counted]]:
    return sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines))


class Unusable(Exception):
    """A row that cannot be used; the message is the counted reason."""


def read_pairs(path: Path, limit: int | None = None, max_cell: int = MAX_CELL) -> Pairs:
    """Read a file of preference pairs; with `limit`, only its first so many lines that are not blank.

    A pair that stands in the file both ways round is dropped both times: neither label can be trusted. A repeated row
    counts once. Raises InputError when no row is left (with the reasons), StoreError where the file cannot be read.
    """
    if not path.is_file():
        raise InputError("--pairs must name a file", str(path), "JSON lines with chosen and rejected (and prompt).")
    if limit is not None and limit < 1:
        raise InputError("the number of rows must be at least 1", limit, "Leave it out to read all.")
    if path.suffix == ".parquet":
        raise InputError("pairs must be JSON lines", str(path), "Export the data set with `to_json`.")
    reader = _Reader(max_cell)
    for line, raw in enumerate(raw_lines(path), 1):
        if limit is not None and reader.total == limit:
            break
        if raw is None or raw.strip():
            reader.take(line, raw)
    found = reader.result()
    if not found.total:
        raise InputError("there must be at least one pair", f"{path}, an empty file", "One JSON object a line.")
    if not found.rows:
        cure = "Repair the file, or name its columns prompt, chosen and rejected."
        raise InputError("at least one row must be usable", found.summary(), cure)
    return found


class RowReader:
    """Turns rows into pairs and counts those that cannot be used."""

    def __init__(self, max_cell: int) -> None:
        self.max_cell = max_cell
        self.total = 0
        self.dropped: dict[str, Counted] = {}
        self.notes: dict[str, Counted] = {}

    def drop(self, reason: str, line: int) -> None:
        self.dropped.setdefault(reason, Counted()).every.append(line)

    def note(self, what: str, line: int) -> None:
        self.notes.setdefault(what, Counted()).every.append(line)

    def parse(self, line: int, raw: bytes | None) -> Pair:
        """A line of JSON as a pair. Raises Unusable with the reason."""
        return self.pair(line, decoded(raw))

    def pair(self, line: int, row: Mapping[str, Any]) -> Pair:
        """A row of named cells as a pair. Raises Unusable with the reason."""
        chosen, rejected = (self.text(row, name) for name in ("chosen", "rejected"))
        if "prompt" in row:
            prompt = self.text(row, "prompt")
        else:
            prompt, chosen, rejected = self._split(line, chosen, rejected)
        if len({type(part) for part in (prompt, chosen, rejected)}) > 1:
            raise Unusable("text and messages mixed")
        for name, part in (("chosen", chosen), ("rejected", rejected)):
            if _empty(part):
                raise Unusable(f"empty {name}")
        if chosen == rejected:
            raise Unusable("chosen and rejected the same")
        if _empty(prompt):
            self.note("empty prompt", line)
        return Pair(line, prompt, chosen, rejected, _confidence(row))

    def text(self, row: Mapping[str, Any], name: str) -> Text:
        """One cell as text or messages. Raises Unusable with the reason."""
        if name not in row:
            raise Unusable(f"without {name}")
        value = row[name]
        if value is None:
            raise Unusable(f"null {name}")
        if isinstance(value, str):
            return self._clean(value)
        if not isinstance(value, list):
            raise Unusable(f"{name} neither text nor messages")
        return tuple(self._message(message) for message in value)

    def _message(self, message: Any) -> Message:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Unusable("a message without role")
        if not isinstance(message.get("content"), str):
            raise Unusable("a message whose content is not text")
        return Message(self._clean(message["role"]), self._clean(message["content"]))

    def _clean(self, text: str) -> str:
        if len(text) > self.max_cell:
            raise Unusable(f"a cell longer than {self.max_cell} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable("half a surrogate pair, which is no text") from None
        return text

    def _split(self, line: int, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
        """The common beginning is the prompt; for text, a space before the first difference goes to the answers.

        TRL's rule, except where one answer is the beginning of the other: TRL then cuts before the last element that
        they share, here the shorter answer is empty.
        """
        if chosen == rejected:
            raise Unusable("chosen and rejected the same")
        if type(chosen) is not type(rejected):
            raise Unusable("text and messages mixed")
        at = _common(chosen, rejected)
        if at < min(len(chosen), len(rejected)) and at > 0 and chosen[at - 1] == " ":
            at -= 1
        if isinstance(chosen, str) and 0 < at < len(chosen) and (chosen[at - 1].isalnum() and chosen[at].isalnum()):
            self.note("implicit prompt that ends inside a word", line)
        return chosen[:at], chosen[at:], rejected[at:]


class _Reader(RowReader):
    """Collects pairs. Digests tell repeated and contradicting ones without comparing texts with each other."""

    def __init__(self, max_cell: int) -> None:
        super().__init__(max_cell)
        self.bytes = 0
        self.kept: dict[bytes, Pair] = {}
        self.contradicted: set[bytes] = set()

    def take(self, line: int, raw: bytes | None) -> None:
        self.total += 1
        try:
            self._keep(self.parse(line, raw))
        except Unusable as e:
            self.drop(str(e), line)
            return
        self.bytes += len(raw or b"") + HELD
        if self.bytes > MAX_KEPT:
            rule = f"pairs must fit into memory: at most {MAX_KEPT >> 20} MB of rows"
            raise InputError(rule, f"more from line {line} on", f"Use --rows {self.total - 1} or fewer.")

    def _keep(self, pair: Pair) -> None:
        same, other = digest(pair.prompt, pair.chosen, pair.rejected), digest(pair.prompt, pair.rejected, pair.chosen)
        if same in self.kept:
            raise Unusable(REPEATED)
        if other in self.kept or same in self.contradicted:
            earlier = self.kept.pop(other, None)
            if earlier is not None:
                self.drop(CONTRADICTING, earlier.line)
            self.contradicted |= {same, other}
            raise Unusable(CONTRADICTING)
        self.kept[same] = pair

    def result(self) -> Pairs:
        return Pairs(tuple(self.kept.values()), self.total, self.dropped, self.notes)


REPEATED = "repeats an earlier row"
CONTRADICTING = "contradicting labels (the same pair both ways round)"


def decoded(raw: bytes | None) -> Mapping[str, Any]:
    """A line as a JSON object. Raises Unusable with the reason; None is a line that was too long to keep."""
    if raw is None:
        raise Unusable("longer than a line may be")
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    except (ValueError, RecursionError):
        raise Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise Unusable("not a JSON object")
    return row


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # by halves: slices compare faster than a loop over characters
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _empty(text: Text) -> bool:
    if isinstance(text, str):
        return not text.strip()
    return not any(message.content.strip() for message in text)


def _confidence(row: Mapping[str, Any]) -> float | None:
    value = row.get("confidence")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value <= 1:  # nor is a NaN
        raise Unusable("confidence outside 0.5 to 1")
    return float(value)


def digest(*parts: Text) -> bytes:
    """16 bytes that tell texts apart."""
    text = json.dumps([part if isinstance(part, str) else [list(m) for m in part] for part in parts])
    return hashlib.sha256(text.encode()).digest()[:16]
