"""From the cells of a row to its texts: which columns hold what, and why a row cannot be used.

TRL's formats: standard or conversational, with the prompt in its own column or as the common beginning of both answers
(found as TRL's `extract_prompt` finds it), and an optional `confidence` that the chosen answer is the better one.
Nothing is cut. A column of other names is given its part here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignfirst.data.rows import Message, RowCounts, Text, TextRow, Unusable

Kind = Literal["pairs", "examples", "prompts"]
MAX_CELL = 1_000_000  # characters of one prompt or answer; longer ones are dropped, never cut
ANSWERS: dict[str, int] = {"pairs": 2, "examples": 1, "prompts": 0}  # of a row of each kind
COLUMNS: dict[str, str] = {  # as a person is told to name them
    "pairs": "prompt, chosen and rejected",
    "examples": "prompt and response",
    "prompts": "prompt",
}


@dataclass(frozen=True)
class TextReader:
    """Reads rows of one kind; what is odd about a row that is kept is noted in `counts`."""

    kind: Kind
    counts: RowCounts
    max_cell: int = MAX_CELL

    def row(self, line: int, cells: Mapping[str, Any]) -> TextRow:
        """The texts of a row. Raises Unusable with the reason."""
        if self.kind == "pairs":
            return self._pair(line, cells)
        prompt = self._text(cells, "prompt")
        if not prompt:
            raise Unusable("empty prompt")
        return TextRow(line, prompt) if self.kind == "prompts" else self._example(line, cells, prompt)

    def _pair(self, line: int, cells: Mapping[str, Any]) -> TextRow:
        chosen, rejected = (self._text(cells, name) for name in ("chosen", "rejected"))
        if "prompt" in cells:
            prompt = self._text(cells, "prompt")
        else:
            prompt, chosen, rejected = self._split(line, chosen, rejected)
        _check_answers(prompt, chosen=chosen, rejected=rejected)
        if _empty(prompt):
            self.counts.note("empty prompt", line)
        return TextRow(line, prompt, chosen, rejected, _confidence(cells))

    def _example(self, line: int, cells: Mapping[str, Any], prompt: Text) -> TextRow:
        name = "chosen" if cells.get("response") is None and "chosen" in cells else "response"
        response = self._text(cells, name)
        _check_answers(prompt, **{name: response})
        return TextRow(line, prompt, response)

    def _text(self, cells: Mapping[str, Any], name: str) -> Text:
        if name not in cells:
            raise Unusable(f"without {name}")
        value = cells[name]
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
            self.counts.note("implicit prompt that ends inside a word", line)
        return chosen[:at], chosen[at:], rejected[at:]


def _check_answers(prompt: Text, **answers: Text) -> None:
    if any(type(answer) is not type(prompt) for answer in answers.values()):
        raise Unusable("text and messages mixed")
    for name, answer in answers.items():
        if _empty(answer):
            raise Unusable(f"empty {name}")
    if len(set(answers.values())) < len(answers):
        raise Unusable("chosen and rejected the same")
    for name, answer in answers.items():
        if not isinstance(answer, str) and answer[-1].role != "assistant":
            raise Unusable(f"{name} does not end with the assistant")


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
