"""Conversations written as one text, `\\n\\nHuman: ...\\n\\nAssistant: ...`, as Anthropic's HH data have them."""

from __future__ import annotations

import re
from typing import NamedTuple

from alignfirst.data.rows import Message

SPEAKERS = {"human": "user", "user": "user", "assistant": "assistant", "ai": "assistant", "system": "system"}
MARK = re.compile(r"(?:\A\s*|\n\n\s*)(Human|User|Assistant|System):|\s*### ?(Human|User|Assistant|System):")
LOOSE = re.compile(r"(?:\A\s*|\n\s*|\s*### ?)(Human|User|Assistant|AI|System):", re.IGNORECASE)


class Turn(NamedTuple):
    """A turn with where its words begin in the text, behind the mark of the speaker."""

    message: Message
    begin: int


def turns(text: str, loose: bool = False) -> list[Turn]:
    """The turns of a transcript; none where the text is not one.

    A transcript begins with a mark of the user or the system and has one of the assistant. `loose`: marks may follow a
    single line break, in any case.
    """
    marks = list((LOOSE if loose else MARK).finditer(text))
    roles = [SPEAKERS[next(g for g in mark.groups() if g).lower()] for mark in marks]
    if not marks or marks[0].start() or roles[0] == "assistant" or not {"user", "assistant"} <= set(roles):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Turn(Message(role, text[mark.end() : end].strip()), mark.end())
        for role, mark, end in zip(roles, marks, ends, strict=True)
    ]


def shared(a: list[Turn], b: list[Turn]) -> int:
    """How many turns two transcripts share, answers of the assistant at their end left out."""
    same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x.message != y.message), min(len(a), len(b)))
    while same and a[same - 1].message.role == "assistant":
        same -= 1
    return same
