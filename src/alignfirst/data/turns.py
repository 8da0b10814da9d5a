"""Where an answer ends: the tokens at which a model stops, and who names them. The one place that says so.

A tokenizer's end token ends a text, which need not be how its chat template ends a turn (Gemma, Phi-3, chat models on
a Qwen base). Generation configs list several. A model stops at each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

QUESTION, ANSWER = "question", "alignfirst"  # the answer's word stands in no template


@dataclass(frozen=True)
class Ends:
    """Ids of the tokens that end an answer, by who names them."""

    tokenizer: int | None
    template: int | None  # how the assistant's turn ends
    generation: tuple[int, ...] = ()  # of the generation configs of the models

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, each once; the tokenizer's first."""
        named = (self.tokenizer, self.template, *self.generation)
        return tuple(dict.fromkeys(i for i in named if i is not None))

    @property
    def agree(self) -> bool:
        """Whether there is but one, and tokenizer and template, where there is one, name it."""
        return len(self.ids) <= 1

    def words(self, tokenizer: Any) -> str:
        """Each token with who names it, such as `'<eos>' (tokenizer), '<end_of_turn>' (chat template)`."""
        named = []
        for i in self.ids:
            by = [(i == self.tokenizer, "tokenizer"), (i == self.template, "chat template")]
            by.append((i in self.generation, "generation config"))
            who = ", ".join(name for says, name in by if says)
            named.append(f"{tokenizer.convert_ids_to_tokens(i)!r} ({who})")
        return ", ".join(named) or "no token"


def ends_of(tokenizer: Any, generation: Sequence[int] = ()) -> Ends:
    """The ends of a tokenizer's models. `generation`: the ids of `eos_token_id` in their generation configs."""
    return Ends(tokenizer.eos_token_id, turn_end(tokenizer), tuple(generation))


def turn_end(tokenizer: Any) -> int | None:
    """The token that ends the assistant's turn in the chat template, found by rendering a conversation.

    Of the special tokens that follow an answer whether or not another turn does, the last: Phi-3 ends a conversation
    with a second token, Command R ends an answer before its turn. Where no token follows both ways, the first one after
    the last answer. None where there is no template, it renders no such conversation, or no single token ends a turn.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    last, amid = _after_answer(tokenizer), _after_answer(tokenizer, {"role": "user", "content": QUESTION})
    if last is None:
        return None
    ids = _ids(tokenizer, last)
    always = ids if amid is None else ids[: common_prefix(ids, _ids(tokenizer, amid))]
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - _unknown(tokenizer)
    for following, place in ((always, -1), (ids, 0)):
        if found := [i for i in following if i in marks]:
            return int(found[place])
    whole = _ids(tokenizer, last.strip())  # a word of the vocabulary that nobody declared special
    return int(whole[0]) if len(whole) == 1 and whole[0] not in _unknown(tokenizer) else None


def _after_answer(tokenizer: Any, *more: dict[str, str]) -> str | None:
    """What the template writes after an answer, `more` messages after it included."""
    chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}, *more]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # a template may raise what it likes; its rows are then refused one by one
        return None
    text = str(text)
    return text.rpartition(ANSWER)[2] if ANSWER in text else None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _unknown(tokenizer: Any) -> set[int]:
    """The token of unknown words, which ends nothing; some tokenizers have the end token stand in for it."""
    return {tokenizer.unk_token_id} - {tokenizer.eos_token_id, None}


def through(ids: list[int], end: int | None) -> list[int]:
    """An answer up to and with its last end token; as it is where it has none."""
    return ids if end is None or end not in ids else ids[: len(ids) - ids[::-1].index(end)]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
