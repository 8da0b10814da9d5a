"""From a cell to text or messages: in OpenAI's form (`role`, `content`) or ShareGPT's (`from`, `value`), with calls of
tools and reasoning kept as they stand for the chat template to render."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from alignfirst.data.rows import Message, RowCounts, Text, Unusable

# What other conventions call the three speakers, and the answer of a tool
ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "ai": "assistant", "bot": "assistant", "observation": "tool",
}  # fmt: skip
CARRIED = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "tool_call_id", "name")
READ = {"role", "content", "from", "value", *CARRIED}
Clean = Callable[[str], str]


def text_or_messages(name: str, value: Any, clean: Clean, counts: RowCounts) -> Text:
    """What a cell holds. `clean` checks each string. Raises Unusable with the reason."""
    if value is None:
        raise Unusable(f"null {name}")
    if isinstance(value, str):
        if not _written_messages(value):
            return clean(value)
        value = _parsed(name, value)
    if isinstance(value, dict):
        value = _transposed(value)
    if not isinstance(value, list):
        raise Unusable(f"{name} neither text nor messages")
    return tuple(_message(message, clean, counts) for message in value)


def _written_messages(text: str) -> bool:
    """Whether it is a list of messages that was written as text, as a CSV file holds them."""
    head = text[:200].lstrip()
    return head.startswith(("[{", "[ {", "[\n")) and any(
        f"{q}{key}{q}" in head for q in "\"'" for key in ("role", "from")
    )


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(f"{name} holds messages written as text that is not JSON") from None


def _transposed(value: Mapping[str, Any]) -> list[Any]:
    """One message, or a table of messages: the `datasets` library keeps older lists of them column by column."""
    if value and all(isinstance(column, list) for column in value.values()):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=False)]
    return [value]


def _message(cell: Any, clean: Clean, counts: RowCounts) -> Message:
    names = ("role", "content") if isinstance(cell, dict) and "role" in cell else ("from", "value")
    if not isinstance(cell, dict) or not isinstance(cell.get(names[0]), str):
        raise Unusable("a message without role")
    for key in cell.keys() - READ:
        counts.pass_over(f"{key} of messages")
    said, content = clean(cell[names[0]]), cell.get(names[1])
    if said == "function_call":
        return Message("assistant", "", _as_call(content))
    more = {key: cell[key] for key in CARRIED if cell.get(key) not in (None, "", [], {})}
    if content is None and ("tool_calls" in more or "function_call" in more):
        content, more = "", more | ({"content": None} if names[1] in cell else {})
    elif isinstance(content, list):
        content = _of_parts(content)
    if not isinstance(content, str):
        raise Unusable("a message whose content is not text")
    return Message(
        ROLES.get(said.lower(), said), clean(content), clean(json.dumps(more, ensure_ascii=False)) if more else ""
    )


def _as_call(content: Any) -> str:
    """ShareGPT's turn `function_call` as a call of a tool."""
    try:
        call = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        call = None
    calls = call if isinstance(call, list) else [call]
    if not calls or not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
        raise Unusable("a function_call that is not a JSON object with a name")
    return json.dumps({"tool_calls": [{"type": "function", "function": c} for c in calls]}, ensure_ascii=False)


def _of_parts(parts: list[Any]) -> str | None:
    """Content in parts, as models of several modalities have it, where all are text."""
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    return "".join(t for t in texts if t is not None) if texts and all(isinstance(t, str) for t in texts) else None


def tools_of(value: Any, clean: Clean) -> str:
    """The column `tools` as a JSON array, or empty. Raises Unusable where it is neither a list of objects nor JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unusable("tools that are not JSON") from None
    if not value:
        return ""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Unusable("tools that are not a list of objects")
    return clean(json.dumps(value, ensure_ascii=False))
