"""A row of data as texts and as token ids, and the counts of rows by what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Message(NamedTuple):
    role: str
    content: str


Text = str | tuple[Message, ...]  # standard or conversational


class TextRow(NamedTuple):
    """One usable row as texts, all standard or all conversational; `line` counts from 1.

    An example has no `rejected` answer, a row of prompts alone has neither: they are empty there. `confidence` is that
    the chosen answer is the better one, from 0.5 to 1.
    """

    line: int
    prompt: Text
    chosen: Text = ""
    rejected: Text = ""
    confidence: float | None = None

    @property
    def conversational(self) -> bool:
        return not isinstance(self.prompt, str)


class TokenRow(NamedTuple):
    """The same row as token ids; answers that it does not have are empty.

    `moved`: tokens of the prompt that went to the answers, because the boundary fell inside one.
    """

    line: int
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    moved: int = 0

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class Unusable(Exception):
    """A row that cannot be used; the message is the counted reason."""


def contents(text: Text) -> list[str]:
    """The strings in a text: itself, or the content of every message."""
    return [text] if isinstance(text, str) else [message.content for message in text]


def as_messages(text: Text, role: str) -> Text:
    """Plain text as one message of that role; messages as they are."""
    return (Message(role, text),) if isinstance(text, str) else text


# -- what became of all rows ----------------------------------------------------------------------------------------

FIRST_LINES = 5  # lines named per reason


@dataclass
class Counted:
    """Lines of the rows that share one reason."""

    every: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.every)

    @property
    def lines(self) -> list[int]:
        """The first five."""
        return sorted(self.every)[:FIRST_LINES]


@dataclass
class RowCounts:
    """Rows read so far, those dropped by reason, and what is odd about others that are kept."""

    total: int = 0
    dropped: dict[str, Counted] = field(default_factory=dict)
    notes: dict[str, Counted] = field(default_factory=dict)

    def drop(self, reason: str, line: int) -> None:
        self.dropped.setdefault(reason, Counted()).every.append(line)

    def note(self, what: str, line: int) -> None:
        self.notes.setdefault(what, Counted()).every.append(line)

    def plain(self) -> dict[str, Any]:
        """For JSON: `dropped` and `notes`, by reason a count and the first lines; the most frequent reason first."""
        return {
            name: {reason: {"count": c.count, "lines": c.lines} for reason, c in by_count(counted)}
            for name, counted in (("dropped", self.dropped), ("notes", self.notes))
        }


def by_count(counted: Mapping[str, Counted]) -> list[tuple[str, Counted]]:
    """Reasons with their rows, the most frequent first."""
    return sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))
