"""Rows as token ids, the way preference training cuts them, by a study's rules: chat template, length, vocabulary.

TRL's DPOTrainer (1.16) tokenises the prompt, and prompt + answer as one text (messages: through the chat template, the
prompt with its generation prompt), and lets the answers begin where the two first differ: earlier than the prompt's end
where a token spans it. Text gets the end token appended, messages end with the token that ends the assistant's turn in
their template: what the template writes after it (ChatML's newline) is no part of an answer, for no model gets that
far. The same is done here, so that an audit scores what will be trained, and every row whose boundary moved is counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from alignfirst.data.conversations.left_out import ignored
from alignfirst.data.layouts import Layout, Shape
from alignfirst.data.pairs import LoadedRows, check_some_left
from alignfirst.data.rows import Messages, Text, TextRow, TokenRow, Unusable, as_messages, contents
from alignfirst.data.shapes import ANSWERS, Kind
from alignfirst.data.turns import common_prefix, through, turn_end
from alignfirst.errors import InputError

TOGETHER = 256  # rows in one call of the tokenizer


@dataclass(frozen=True)
class Tokeniser:
    """A Hugging Face tokenizer (or anything with its `__call__`, `apply_chat_template` and special tokens)."""

    tokenizer: Any

    @property
    def template(self) -> Any:
        """The chat template, None where there is none."""
        return getattr(self.tokenizer, "chat_template", None)

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends a turn of the assistant in the chat template."""
        return turn_end(self.tokenizer)

    def policy(self) -> dict[str, Any]:
        """What was done to texts, for a person to see."""
        template = self.template
        return {
            "end token": f"{self.tokenizer.eos_token!r} appended to text answers that lack it (as TRL does)",
            "messages": "no chat template" if template is None else self._templated(str(template)),
            "text": "tokenised as it stands, no template",
            "truncation": "none",
        }

    def _templated(self, template: str) -> str:
        end = self.turn_end
        words = "no token ends a turn" if end is None else f"{self.tokenizer.convert_ids_to_tokens(end)!r} ends a turn"
        return f"chat template of {len(template)} characters, {words}"

    def rows(self, rows: Sequence[TextRow], answers: int = 2) -> list[TokenRow]:
        """Rows as token ids, with the first so many of their answers (0: the prompt alone).

        Raises InputError for messages without a template, and for a prompt of no tokens where there is no BOS.
        """
        prompts = self._many([(row.prompt, row.tools) for row in rows], generation=True)
        wanted = [(row, answer) for row in rows for answer in (row.chosen, row.rejected)[:answers]]
        both = iter(self._many([(_joined(row.prompt, self._ended(answer)), row.tools) for row, answer in wanted]))
        return [self._cut(row, ids, list(islice(both, answers))) for row, ids in zip(rows, prompts, strict=True)]

    def _cut(self, row: TextRow, prompt: list[int], both: list[list[int]]) -> TokenRow:
        end = self.turn_end if row.conversational else None
        at = min((common_prefix(prompt, ids) for ids in both), default=len(prompt))
        chosen, rejected = [through(ids[at:], end) for ids in both] + [[] for _ in range(2 - len(both))]
        return TokenRow(row.line, self._begun(prompt[:at], row.line), chosen, rejected, len(prompt) - at)

    def _ended(self, answer: Text) -> Text:
        end = self.tokenizer.eos_token
        return answer + end if isinstance(answer, str) and end and not answer.endswith(end) else answer

    def _begun(self, ids: list[int], line: int) -> list[int]:
        if ids:
            return ids
        if self.tokenizer.bos_token_id is None:
            cure = "Begin the prompt with some text: the first token of a text has no log-probability."
            raise InputError("a prompt must have a token", f"none in line {line}", cure)
        return [self.tokenizer.bos_token_id]

    def _many(self, texts: Sequence[tuple[Text, str]], generation: bool = False) -> list[list[int]]:
        """Token ids of texts, and of messages with their tools through the template; both may stand in one file."""
        plain = iter(self._plain([t for t, _ in texts if isinstance(t, str)]))
        messages = iter(self._messages([(t, tools) for t, tools in texts if not isinstance(t, str)], generation))
        return [list(next(plain if isinstance(t, str) else messages)) for t, _ in texts]

    def _plain(self, texts: list[str]) -> Any:
        return self.tokenizer(texts)["input_ids"] if texts else []

    def _messages(self, texts: list[tuple[Messages, str]], generation: bool) -> list[Any]:
        if texts and self.template is None:
            cure = "Use a tokenizer with a template, or pairs of plain text."
            raise InputError("messages need a chat template", "a tokenizer without one", cure)
        found: list[Any] = [None] * len(texts)
        for tools in dict.fromkeys(tools for _, tools in texts):  # one call for all rows with the same tools
            which = [n for n, (_, own) in enumerate(texts) if own == tools]
            chats = [[message.plain() for message in texts[n][0]] for n in which]
            rendered = self.tokenizer.apply_chat_template(
                chats, tokenize=True, add_generation_prompt=generation, return_dict=True, **_given_tools(tools)
            )
            for n, ids in zip(which, rendered["input_ids"], strict=True):
                found[n] = ids
        return found

    def usable(self, rows: Sequence[TextRow], answers: int = 2) -> list[TokenRow | Unusable]:
        """As `rows`, in one call of the tokenizer unless it refuses one of them; that one is Unusable with its reason,
        and so is a row of which the template leaves something out.

        Raises InputError for messages where the tokenizer has no chat template.
        """
        try:
            encoded = self.rows(rows, answers)
        except Exception as e:
            if len(rows) == 1:
                return [_refusal(e)]
            # Which one and why is found out one by one
            return [found for row in rows for found in self.usable([row], answers)]
        left_out = (ignored(self.tokenizer, row, answers) for row in rows)
        return [
            row if what is None else Unusable(f"the chat template ignores {what}")
            for row, what in zip(encoded, left_out, strict=True)
        ]

    def kept(self, found: LoadedRows, kind: Kind) -> tuple[LoadedRows, list[TokenRow]]:
        """Loaded rows that the tokenizer takes, as texts and as ids; the others are counted as dropped.

        Raises InputError for messages without a template, and where no row is left.
        """
        texts, rows = list[TextRow](), list[TokenRow]()
        encoded = (
            row
            for begin in range(0, len(found), TOGETHER)
            for row in self.usable(found.rows[begin : begin + TOGETHER], ANSWERS[kind])
        )
        for text, row in zip(found.rows, encoded, strict=True):
            if isinstance(row, Unusable):
                found.counts.drop(str(row), text.line)
            else:
                texts.append(text)
                rows.append(row)
        left = LoadedRows(tuple(texts), found.counts)
        check_some_left(left, kind)
        return left, rows


def _given_tools(tools: str) -> dict[str, Any]:
    return {"tools": json.loads(tools)} if tools else {}


@dataclass(frozen=True)
class Rules:
    """What decides which rows are used, and how they are cut into tokens."""

    kind: Kind
    limit: int | None  # only so many rows are read
    max_length: int  # tokens of a prompt with its answer
    chat: bool  # plain text is wrapped into the chat template
    held_out: float  # share of the prompts
    split_seed: int
    vocabulary: int  # tokens that both models have
    shape: Shape = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)  # part -> column


class Encoder:
    """Turns rows of texts into token ids; a row that cannot be used into Unusable with the counted reason."""

    def __init__(self, tokenizer: Any, rules: Rules) -> None:
        self.rules = rules
        self.answers = ANSWERS[rules.kind]
        self.tokeniser = Tokeniser(tokenizer)
        self.layout = Layout(rules.shape, rules.columns, chat=self.tokeniser.template is not None)
        self.special = [t for t in getattr(tokenizer, "all_special_tokens", ()) if len(t) > 1]

    def many(self, rows: Sequence[TextRow]) -> list[TokenRow | Unusable]:
        """Token ids of rows, in one call of the tokenizer unless it refuses one of them.

        Raises InputError for messages where the tokenizer has no chat template.
        """
        encoded = self.tokeniser.usable([self._wrapped(row) for row in rows], self.answers)
        return [self._fit(row) if isinstance(row, TokenRow) else row for row in encoded]

    def _fit(self, row: TokenRow) -> TokenRow | Unusable:
        why = self._unfit(row)
        return row if why is None else Unusable(why)

    def _wrapped(self, row: TextRow) -> TextRow:
        if not self.rules.chat or row.conversational:
            return row
        chosen, rejected = (as_messages(text, "assistant") for text in (row.chosen, row.rejected))
        return row._replace(prompt=as_messages(row.prompt, "user"), chosen=chosen, rejected=rejected)

    def _unfit(self, row: TokenRow) -> str | None:
        if not all((row.chosen, row.rejected)[: self.answers]):
            return "an answer of no tokens"
        if self.answers == 2 and row.chosen == row.rejected:
            return "chosen and rejected the same tokens"
        if row.length > self.rules.max_length:
            return f"longer than {self.rules.max_length} tokens"
        if max(max(ids, default=0) for ids in (row.prompt, row.chosen, row.rejected)) >= self.rules.vocabulary:
            return "a token that the model does not have"
        return None

    def odd(self, row: TextRow) -> list[str]:
        """What is odd about a row that is kept."""
        texts = [t for part in (row.prompt, row.chosen, row.rejected) for t in contents(part)]
        found = []
        if any("\ufffd" in t for t in texts):
            found.append("the replacement character U+FFFD: text was decoded wrongly before")
        if any("\x00" in t for t in texts):
            found.append("a NUL character")
        if any(s in t for t in texts for s in self.special):
            found.append("a special token of the model written out in text")
        return found


def _refusal(error: Exception) -> Unusable:
    """Why the tokenizer does not take a row. Raises the error where it is not the row's."""
    if isinstance(error, InputError) and "chat template" not in error.rule:
        return Unusable("a prompt of no tokens")
    if isinstance(error, ValueError | TypeError | KeyError) and not isinstance(error, InputError):
        # A template's own complaint, or a strange role
        return Unusable(f"the tokenizer refuses it ({type(error).__name__})")
    if type(error).__module__.startswith("jinja2"):
        return Unusable("the chat template refuses it")
    raise error


def pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """The text of every token in its place; together they are the whole text.

    Tokens are decoded with all that stands before them, for alone they may lose a space. A character of several tokens
    stands with the last of them, the others are empty.
    """
    found, so_far = [], ""
    for n in range(1, len(ids) + 1):
        text = decode(ids[:n])
        if text.endswith("\ufffd") and n < len(ids):  # not yet a character
            found.append("")
        else:
            found.append(text[len(so_far) :])
            so_far = text
    return found


def _joined(prompt: Text, answer: Text) -> Text:
    return prompt + answer  # type: ignore[operator]  # a row is all text or all messages
