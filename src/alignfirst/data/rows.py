"""The two forms in which a row of data is held: its texts, and its token ids."""

from __future__ import annotations

from typing import NamedTuple


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
