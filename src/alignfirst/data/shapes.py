"""From the cells of a row to its texts, and why a row cannot be used.

TRL's formats: standard or conversational, with the prompt in its own column or as the common beginning of both answers
(found as TRL's `extract_prompt` finds it), and an optional `confidence` that the chosen answer is the better one; and
what other public data have: answers as whole conversations, ShareGPT's messages, Alpaca's and Orca's columns, `system`
and `tools`, transcripts. Nothing is cut, and no word of an answer of a conversation goes to its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alignfirst.data.conversations import transcripts
from alignfirst.data.conversations.messages import text_or_messages, tools_of
from alignfirst.data.layouts import Layout, ambiguous, filled
from alignfirst.data.rows import Message, Messages, RowCounts, Text, TextRow, Unusable, as_messages, contents

Kind = Literal["pairs", "examples", "prompts"]
MAX_CELL = 1_000_000  # characters of one prompt or answer; longer ones are dropped, never cut
ANSWERS: dict[str, int] = {"pairs": 2, "examples": 1, "prompts": 0}  # of a row of each kind
COLUMNS: dict[str, str] = {  # as a person is told to name them
    "pairs": "prompt, chosen and rejected",
    "examples": "prompt and response",
    "prompts": "prompt",
}
CONTEXT = {"prompt", "system", "tools"}
WANTED: dict[str, set[str]] = {
    "pairs": CONTEXT | {"chosen", "rejected", "confidence"},
    "examples": CONTEXT | {"chosen", "response"},
    "prompts": CONTEXT,
}
WHOLE = "answers are whole conversations, whose prompt counts once"
TRANSCRIPTS = "transcripts are read as conversations"
AGAIN = (
    "the prompt stands again at the beginning of both answers (data.shape: conversation takes it off there, "
    "preference says that it belongs there)"
)
IMPLICIT = "no prompt: it is the common beginning of both answers, with any words of theirs that are the same"
SEVERAL = "an answer that holds turns of the user"


@dataclass(frozen=True)
class TextReader:
    """Reads rows of one kind; what is odd about a row that is kept is noted in `counts`."""

    kind: Kind
    counts: RowCounts
    max_cell: int = MAX_CELL
    layout: Layout = field(default_factory=Layout)

    def row(self, line: int, cells: Mapping[str, Any]) -> TextRow:
        """The texts of a row. Raises Unusable with the reason."""
        parts = self.layout.parts(cells, WANTED[self.kind], self.counts)
        found: TextRow = getattr(self, f"_{self.kind}")(line, parts)
        found = found._replace(prompt=self._with_system(found.prompt, parts.get("system")))
        if isinstance(found.prompt, tuple) and found.prompt[-1:] and found.prompt[-1].role == "assistant":
            self.counts.note("a prompt that ends with the assistant", line)
        tools = tools_of(parts.get("tools"), self._clean)
        if tools or not isinstance(found.prompt, str):
            found = _all_messages(found)._replace(tools=tools)
        return found

    def _prompts(self, line: int, parts: Mapping[str, Any]) -> TextRow:
        prompt = self._explicit_prompt(parts)
        if not isinstance(prompt, str):
            prompt = _without_answer(prompt)
        if not prompt:
            raise Unusable("empty prompt")
        return TextRow(line, prompt)

    def _examples(self, line: int, parts: Mapping[str, Any]) -> TextRow:
        prompt = self._explicit_prompt(parts)
        if not prompt:
            raise Unusable("empty prompt")
        name = "chosen" if parts.get("response") is None and "chosen" in parts else "response"
        prompt, response = _alike(prompt, self._text(parts, name))
        if not isinstance(prompt, str) and response[: len(prompt)] == prompt and response[len(prompt) :]:
            response = response[len(prompt) :]
        _check_answers(prompt, **{name: response})
        return TextRow(line, prompt, response)

    def _pairs(self, line: int, parts: Mapping[str, Any]) -> TextRow:
        chosen, rejected = (self._text(parts, name) for name in ("chosen", "rejected"))
        if "prompt" in parts and "elsewhere" in parts:  # it is there, but empty
            raise ambiguous(parts["elsewhere"])
        prompt = self._text(parts, "prompt") if "prompt" in parts else None
        prompt, chosen, rejected = self._from_transcripts(prompt, chosen, rejected)
        if prompt is None:
            prompt, chosen, rejected = self._split(line, chosen, rejected, parts.get("elsewhere", {}))
        else:
            prompt, chosen, rejected = self._unwrapped(line, *_alike(prompt, chosen, rejected))
        _check_answers(prompt, chosen=chosen, rejected=rejected)
        if _empty(prompt):
            self.counts.note("empty prompt", line)
        if any(m.role == "user" for answer in (chosen, rejected) if isinstance(answer, tuple) for m in answer):
            self.counts.note(SEVERAL, line)
        return TextRow(line, prompt, chosen, rejected, _confidence(parts))

    # -- cells ------------------------------------------------------------------------------------------------------

    def _text(self, parts: Mapping[str, Any], name: str) -> Text:
        if name not in parts:
            raise Unusable(f"without {name}")
        return text_or_messages(name, parts[name], self._clean, self.counts)

    def _clean(self, text: str) -> str:
        if len(text) > self.max_cell:
            raise Unusable(f"a cell longer than {self.max_cell} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable("half a surrogate pair, which is no text") from None
        return text

    def _explicit_prompt(self, parts: Mapping[str, Any]) -> Text:
        """The prompt of a row that has no pair of answers to read it off."""
        if "elsewhere" in parts:
            raise ambiguous(parts["elsewhere"])
        prompt = self._text(parts, "prompt")
        return self._prompt_turns(prompt) if isinstance(prompt, str) else prompt

    def _with_system(self, prompt: Text, system: Any) -> Text:
        if not filled(system):
            return prompt
        if not isinstance(system, str):
            raise Unusable("system is not text")
        first = Message("system", self._clean(system))
        turns = as_messages(prompt, "user")
        assert not isinstance(turns, str)
        if turns[:1] and turns[0].role == "system":
            if turns[0].content.strip() != system.strip():
                raise Unusable("two different system messages")
            return turns
        return (first, *turns)

    # -- transcripts ------------------------------------------------------------------------------------------------

    def _turns(self, text: Text) -> list[transcripts.Turn]:
        if not isinstance(text, str) or self.layout.shape not in ("auto", "transcript"):
            return []
        return transcripts.turns(text, loose=self.layout.shape == "transcript")

    def _prompt_turns(self, prompt: str) -> Text:
        """A prompt that is a transcript, as messages; a text model reads it as it stands."""
        found = [turn.message for turn in self._turns(prompt)]
        if not found or not self.layout.chat:
            return prompt
        if not found[-1].content:
            found.pop()
        self.counts.understood(TRANSCRIPTS)
        return tuple(found)

    def _from_transcripts(self, prompt: Text | None, chosen: Text, rejected: Text) -> tuple[Text | None, Text, Text]:
        """Transcripts as messages; for a text model cut behind the mark of the answer that is not shared."""
        both = self._turns(chosen), self._turns(rejected)
        if any(both) and not all(both):
            raise Unusable("a transcript and another text as answers")
        if isinstance(prompt, str):
            prompt = self._prompt_turns(prompt)
            if isinstance(prompt, tuple) and not any(both):
                chosen, rejected = (self._answer_turns(answer) for answer in (chosen, rejected))
        if not all(both):
            return prompt, chosen, rejected
        if not isinstance(prompt, tuple):
            self.counts.understood(TRANSCRIPTS)
        if self.layout.chat:
            chosen, rejected = (tuple(turn.message for turn in turns) for turns in both)
            return prompt, chosen, rejected
        assert isinstance(chosen, str) and isinstance(rejected, str)
        at = transcripts.shared(*both)
        if not at or any(turns[at:] and turns[at].message.role != "assistant" for turns in both):
            raise Unusable("answers to different conversations")
        begin, other = (
            turns[at].begin if turns[at:] else len(text) for turns, text in zip(both, (chosen, rejected), strict=True)
        )
        return chosen[:begin], chosen[begin:], rejected[other:]

    def _answer_turns(self, answer: Text) -> Text:
        """An answer behind a transcript: one turn, or several where marks follow."""
        if not isinstance(answer, str):
            return answer
        found = transcripts.turns("\n\nHuman:\n\nAssistant:" + answer, loose=self.layout.shape == "transcript")
        return tuple(turn.message for turn in found[1:])

    # -- where the prompt ends --------------------------------------------------------------------------------------

    def _split(self, line: int, chosen: Text, rejected: Text, elsewhere: Mapping[str, Any]) -> tuple[Text, Text, Text]:
        """The common beginning is the prompt; for text, a space before the first difference goes to the answers.

        TRL's rule, except where one answer is the beginning of the other: TRL then cuts before the last element that
        they share, here the shorter answer is empty.
        """
        if chosen == rejected:
            raise Unusable("chosen and rejected the same")
        if type(chosen) is not type(rejected):
            raise Unusable("text and messages mixed")
        at = _common(chosen, rejected)
        if isinstance(chosen, tuple) and isinstance(rejected, tuple):
            if elsewhere and not self._holds(chosen[:at], elsewhere):
                raise ambiguous(elsewhere)
            _check_same_question(chosen[at:], rejected[at:], at)
            return chosen[:at], chosen[at:], rejected[at:]
        if elsewhere:
            raise ambiguous(elsewhere)
        if at < min(len(chosen), len(rejected)) and at > 0 and chosen[at - 1] == " ":
            at -= 1
        if 0 < at < len(chosen) and (str(chosen[at - 1]).isalnum() and str(chosen[at]).isalnum()):
            self.counts.note("implicit prompt that ends inside a word", line)
        if self.layout.shape == "auto" and "prompt" not in self.layout.columns and at:
            self.counts.note(IMPLICIT, line)
        return chosen[:at], chosen[at:], rejected[at:]

    def _holds(self, prompt: Messages, elsewhere: Mapping[str, Any]) -> bool:
        """Whether what stands in other columns is in the prompt that both answers share."""
        said = {_words(message.content) for message in prompt if message.role == "user"}

        def held(cell: Any) -> bool:
            if isinstance(cell, str):
                return _words(cell) in said
            found = text_or_messages("messages", cell, self._clean, self.counts)
            return any(_words(text) in said for text in contents(found))

        return all(held(cell) for cell in elsewhere.values())

    def _unwrapped(self, line: int, prompt: Text, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
        """Answers without the prompt, where they are whole conversations that hold it."""
        if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
            begin = prompt.strip()
            if (
                self.layout.shape == "preference"
                or not begin
                or not all(answer.lstrip().startswith(begin) for answer in (chosen, rejected))
            ):
                return prompt, chosen, rejected
            if self.layout.shape != "conversation":
                self.counts.note(AGAIN, line)
                return prompt, chosen, rejected
            self.counts.understood(WHOLE)
            chosen, rejected = (answer.lstrip().removeprefix(begin) for answer in (chosen, rejected))
            return prompt, chosen, rejected
        if isinstance(prompt, str) or isinstance(chosen, str) or isinstance(rejected, str):
            return prompt, chosen, rejected  # mixed: refused by the check of the answers
        if self.layout.shape == "preference" or not (chosen and rejected):
            return prompt, chosen, rejected
        if not any(_whole(answer) for answer in (chosen, rejected)):
            return prompt, chosen, rejected
        self.counts.understood(WHOLE)
        return _out_of_conversations(prompt, chosen, rejected)


def _out_of_conversations(prompt: Messages, chosen: Messages, rejected: Messages) -> tuple[Text, Text, Text]:
    """Prompt and answers where at least one answer is a whole conversation that must hold the prompt."""
    first = chosen if _whole(chosen) else rejected
    other = rejected if first is chosen else chosen
    if not _whole(other):  # the prompt stands in one of them alone
        at = len(prompt) if _same(first[: len(prompt)], prompt) else None
        if at is None:
            raise Unusable("an answer holds another conversation than the prompt's")
        cut = first[at:]
        return (prompt, cut, rejected) if first is chosen else (prompt, chosen, cut)
    at = _common(chosen, rejected)
    while at and chosen[at - 1].role == "assistant" and at == min(len(chosen), len(rejected)):
        at -= 1
    shared = chosen[:at]
    if not (_same(shared[: len(prompt)], prompt) or _same(prompt[len(prompt) - at :], shared) or _said(prompt, shared)):
        raise Unusable("the answers hold another conversation than the prompt's")
    _check_same_question(chosen[at:], rejected[at:], at)
    return (prompt if len(prompt) > at else shared), chosen[at:], rejected[at:]


def _whole(answer: Messages) -> bool:
    """Whether it begins with what a user or the system says, so that it is no answer alone."""
    return answer[0].role in ("user", "system")


def _said(prompt: Messages, shared: Messages) -> bool:
    """Whether every turn of the prompt is one of the shared ones."""
    said = {(message.role, _words(message.content)) for message in shared}
    return bool(prompt) and all((message.role, _words(message.content)) in said for message in prompt)


def _same(a: Messages, b: Messages) -> bool:
    return bool(b) and [(m.role, _words(m.content)) for m in a] == [(m.role, _words(m.content)) for m in b]


def _words(text: str) -> str:
    return " ".join(text.split())


def _check_same_question(chosen: Messages, rejected: Messages, at: int) -> None:
    """Raise Unusable where the first turn that differs is the user's, so that there are two questions."""
    if any(answer and answer[0].role in ("user", "system") for answer in (chosen, rejected)):
        raise Unusable("answers to different conversations")


def _without_answer(prompt: Messages) -> Messages:
    """A conversation up to the turn that the model is to answer."""
    while prompt and prompt[-1].role == "assistant":
        prompt = prompt[:-1]
    return prompt


def _alike(prompt: Text, *answers: Text) -> tuple[Any, ...]:
    """A text beside messages as a message: the user's where it is the prompt, else the assistant's."""
    if isinstance(prompt, str) and answers and all(isinstance(answer, tuple) for answer in answers):
        return as_messages(prompt, "user"), *answers
    if isinstance(prompt, tuple) and all(isinstance(answer, str) for answer in answers):
        return prompt, *(as_messages(answer, "assistant") for answer in answers)
    return prompt, *answers


def _all_messages(row: TextRow) -> TextRow:
    """Every part as messages; parts that the row does not have stay empty."""
    chosen, rejected = (as_messages(text, "assistant") if text else text for text in (row.chosen, row.rejected))
    return row._replace(prompt=as_messages(row.prompt, "user"), chosen=chosen, rejected=rejected)


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
    return not any(message.content.strip() or message.more for message in text)


def _confidence(row: Mapping[str, Any]) -> float | None:
    value = row.get("confidence")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value <= 1:  # nor is a NaN
        raise Unusable("confidence outside 0.5 to 1")
    return float(value)
