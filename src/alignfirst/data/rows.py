"""A row of data as texts and as token ids, and the counts of rows by what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One turn. `more`: a JSON object of what else a template may render (tool calls, reasoning), or empty."""

    role: str
    content: str
    more: str = ""

    @property
    def carried(self) -> dict[str, Any]:
        """What stands beside role and content."""
        return dict(json.loads(self.more)) if self.more else {}

    def plain(self) -> dict[str, Any]:
        """As a chat template takes it."""
        return {"role": self.role, "content": self.content, **self.carried}


Messages = tuple[Message, ...]
Text = str | Messages  # standard or conversational


class TextRow(NamedTuple):
    """One usable row as texts, all standard or all conversational; `line` counts from 1.

    An example has no `rejected` answer, a row of prompts alone has neither: they are empty there. `confidence` is that
    the chosen answer is the better one, from 0.5 to 1. `tools`: a JSON array of what the model may call, or empty.
    """

    line: int
    prompt: Text
    chosen: Text = ""
    rejected: Text = ""
    confidence: float | None = None
    tools: str = ""

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
MAX_UNUSED = 100


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
    """Rows read so far, those dropped by reason, and what is odd about others that are kept.

    `read_as` says how the shape of rows was understood, `unused` names what stands there and is not used.
    """

    total: int = 0
    dropped: dict[str, Counted] = field(default_factory=dict)
    notes: dict[str, Counted] = field(default_factory=dict)
    read_as: dict[str, int] = field(default_factory=dict)
    unused: dict[str, None] = field(default_factory=dict)  # in the order in which they were met

    def drop(self, reason: str, line: int) -> None:
        self.dropped.setdefault(reason, Counted()).every.append(line)

    def note(self, what: str, line: int) -> None:
        self.notes.setdefault(what, Counted()).every.append(line)

    def understood(self, how: str) -> None:
        self.read_as[how] = self.read_as.get(how, 0) + 1

    def pass_over(self, name: str) -> None:
        """A column, or a key of messages, that is not used: named once, the first hundred of them."""
        if len(self.unused) < MAX_UNUSED:
            self.unused.setdefault(name)

    def sentences(self) -> list[str]:
        """How the rows were understood, and what of them is not used."""
        found = [f"{count} rows: {how}" for how, count in self.read_as.items()]
        return [*found, f"not used: {', '.join(self.unused)}"] if self.unused else found

    def plain(self) -> dict[str, Any]:
        """For JSON: `dropped` and `notes`, by reason a count and the first lines, the most frequent reason first;
        `read_as`, sentences."""
        return {"read_as": list(self.sentences())} | {
            name: {reason: {"count": c.count, "lines": c.lines} for reason, c in by_count(counted)}
            for name, counted in (("dropped", self.dropped), ("notes", self.notes))
        }


def by_count(counted: Mapping[str, Counted]) -> list[tuple[str, Counted]]:
    """Reasons with their rows, the most frequent first."""
    return sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))
