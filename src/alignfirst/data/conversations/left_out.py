"""What a chat template leaves out of a conversation: found by rendering it once more with that part changed.

Templates pass over what they do not know (tools, calls, reasoning, the turns of a tool) without a word; a model would
be trained on what is left. A conversation of users and assistants without any of these is not rendered again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from alignfirst.data.rows import Message, Messages, TextRow

REASONING = ("reasoning_content", "reasoning", "thinking")
CALLS = ("tool_calls", "function_call")
MARK = " ~"  # what a content is changed by


def ignored(tokenizer: Any, row: TextRow, answers: int) -> str | None:
    """The first part of a row's conversations that the tokenizer's chat template does not render; None where all is.

    Reasoning in earlier turns may be left out where it is rendered in the last one, as reasoning models do it.
    """
    if isinstance(row.prompt, str):
        return None
    for answer in (row.chosen, row.rejected)[:answers] or ((),):
        assert not isinstance(answer, str)
        chat = (*row.prompt, *answer)
        if row.tools or any(message.more or message.role not in ("user", "assistant") for message in chat):
            found = _left_out(_Renderer(tokenizer, row.tools), chat)
            if found is not None:
                return found
    return None


class _Renderer:
    def __init__(self, tokenizer: Any, tools: str) -> None:
        self.tokenizer, self.tools = tokenizer, tools

    def text(self, chat: Messages, tools: bool = True) -> str:
        given = {"tools": json.loads(self.tools)} if tools and self.tools else {}
        plain = [message.plain() for message in chat]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, **given))

    def same(self, chat: Messages, other: Messages, tools: bool = True) -> bool:
        """Whether two conversations are rendered alike; not where the other is refused, which tells them apart."""
        whole = self.text(chat)
        try:
            return self.text(other, tools) == whole
        except Exception:  # whatever a template raises
            return False


def _left_out(renderer: _Renderer, chat: Messages) -> str | None:
    if renderer.tools and renderer.same(chat, chat, tools=False):
        return "tools"
    for n, message in enumerate(chat):
        for what, changed in _changes(message):
            until = chat[: n + 1] if what in REASONING else chat
            if renderer.same(until, (*chat[:n], changed, *until[n + 1 :])):
                return what
    return None


def _changes(message: Message) -> Iterator[tuple[str, Message]]:
    """A message with each of its parts changed, and what the part is."""
    more = message.carried
    for key in (*CALLS, *REASONING):
        if key in more:
            yield key, _with(message, {k: v for k, v in more.items() if k != key})
    calls = more.get("tool_calls")
    if isinstance(calls, list) and len(calls) > 1:
        for n in range(len(calls)):
            yield "one of several tool_calls", _with(message, more | {"tool_calls": calls[:n] + calls[n + 1 :]})
    if message.content.strip() and (more or message.role not in ("user", "assistant")):
        special = [key for key in (*CALLS, *REASONING) if key in more]
        beside = f" beside {', '.join(special)}" if special else ""
        yield f"what {message.role} says{beside}", message._replace(content=message.content + MARK)


def _with(message: Message, more: dict[str, Any]) -> Message:
    return message._replace(more=json.dumps(more, ensure_ascii=False) if more else "")
