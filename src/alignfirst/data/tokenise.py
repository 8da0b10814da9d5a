"""Prompt and answers as token ids, the way preference training cuts them.

TRL's DPOTrainer (1.16) tokenises the prompt, and prompt + answer as one text (messages: through the chat template, the
prompt with its generation prompt), and lets the answers begin where the two first differ: earlier than the prompt's end
where a token spans it. Text gets the end token appended, messages end as their template ends. The same is done here, so
that an audit scores what will be trained, and every row whose boundary moved is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from alignfirst.data.pairs import Message, Pair, Text
from alignfirst.errors import InputError


class Encoded(NamedTuple):
    """Token ids. `moved`: tokens of the prompt that went to the answers, because the boundary fell inside one."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    moved: int


@dataclass(frozen=True)
class Tokeniser:
    """A Hugging Face tokenizer (or anything with its `__call__`, `apply_chat_template` and special tokens)."""

    tokenizer: Any

    def policy(self) -> dict[str, Any]:
        """What was done to texts, for a person to see."""
        template = getattr(self.tokenizer, "chat_template", None)
        return {
            "end token": f"{self.tokenizer.eos_token!r} appended to text answers that lack it (as TRL does)",
            "messages": "no chat template" if template is None else f"chat template of {len(str(template))} characters",
            "text": "tokenised as it stands, no template",
            "truncation": "none",
        }

    def pair(self, pair: Pair) -> Encoded:
        """Raises InputError for messages without a template, and for a prompt of no tokens where there is no BOS."""
        return self.pairs([pair])[0]

    def pairs(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """The same for many at once, which is several times as fast. Raises what any of them raises alone."""
        prompts = self._many([pair.prompt for pair in pairs], generation=True)
        answers = [(pair, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        both = self._many([_joined(pair.prompt, self._ended(answer)) for pair, answer in answers])
        cut = zip(pairs, prompts, both[::2], both[1::2], strict=True)
        return [self._cut(pair.line, prompt, chosen, rejected) for pair, prompt, chosen, rejected in cut]

    def _cut(self, line: int, prompt: list[int], chosen: list[int], rejected: list[int]) -> Encoded:
        at = min(common_prefix(prompt, ids) for ids in (chosen, rejected))
        return Encoded(self._begun(prompt[:at], line), chosen[at:], rejected[at:], len(prompt) - at)

    def example(self, prompt: Text, answer: Text, line: int) -> tuple[list[int], list[int]]:
        """One prompt and one answer, cut in the same way."""
        alone, both = self._ids(prompt, generation=True), self._ids(_joined(prompt, self._ended(answer)))
        at = common_prefix(alone, both)
        return self._begun(alone[:at], line), both[at:]

    def prompt(self, prompt: Text, line: int) -> list[int]:
        """A prompt to sample from."""
        return self.prompts([prompt], [line])[0]

    def prompts(self, prompts: Sequence[Text], lines: Sequence[int]) -> list[list[int]]:
        """The same for many at once."""
        found = self._many(prompts, generation=True)
        return [self._begun(ids, line) for ids, line in zip(found, lines, strict=True)]

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

    def _ids(self, text: Text, generation: bool = False) -> list[int]:
        return self._many([text], generation)[0]

    def _many(self, texts: Sequence[Text], generation: bool = False) -> list[list[int]]:
        """Token ids of texts, and of messages through the template; both may stand in one file."""
        plain = iter(self._plain([t for t in texts if isinstance(t, str)]))
        messages = iter(self._messages([t for t in texts if not isinstance(t, str)], generation))
        return [list(next(plain if isinstance(t, str) else messages)) for t in texts]

    def _plain(self, texts: list[str]) -> Any:
        return self.tokenizer(texts)["input_ids"] if texts else []

    def _messages(self, texts: list[tuple[Message, ...]], generation: bool) -> Any:
        if not texts:
            return []
        if getattr(self.tokenizer, "chat_template", None) is None:
            cure = "Use a tokenizer with a template, or pairs of plain text."
            raise InputError("messages need a chat template", "a tokenizer without one", cure)
        chats = [[{"role": m.role, "content": m.content} for m in text] for text in texts]
        found = self.tokenizer.apply_chat_template(
            chats, tokenize=True, add_generation_prompt=generation, return_dict=True
        )
        return found["input_ids"]


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
    return prompt + answer  # type: ignore[operator]  # a Pair is all text or all messages


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
