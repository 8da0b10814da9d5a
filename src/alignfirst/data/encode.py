"""From the texts of a row to its token ids by a study's rules: chat template, length, vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.data.rows import TextRow, TokenRow, Unusable, as_messages, contents
from alignfirst.data.shapes import ANSWERS, Kind
from alignfirst.data.tokenise import Tokeniser
from alignfirst.errors import InputError


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


class Encoder:
    """Turns rows of texts into token ids. A row that cannot be used raises, or is, Unusable with the counted reason."""

    def __init__(self, tokenizer: Any, rules: Rules) -> None:
        self.rules = rules
        self.answers = ANSWERS[rules.kind]
        self.tokeniser = Tokeniser(tokenizer)
        self.special = [t for t in getattr(tokenizer, "all_special_tokens", ()) if len(t) > 1]

    def one(self, row: TextRow) -> TokenRow:
        """The token ids of one row. Raises Unusable."""
        try:
            [found] = self._encoded([row])
        except InputError as e:
            if "chat template" in e.rule:
                raise
            raise Unusable("a prompt of no tokens") from None
        except (ValueError, TypeError, KeyError) as e:  # a template's own complaint, a strange role
            raise Unusable(f"the tokenizer refuses it ({type(e).__name__})") from None
        except Exception as e:
            if type(e).__module__.startswith("jinja2"):
                raise Unusable("the chat template refuses it") from None
            raise
        return self._checked(found)

    def many(self, rows: Sequence[TextRow]) -> list[TokenRow | Unusable]:
        """Those of many rows, in one call of the tokenizer unless it refuses one of them."""
        try:
            encoded = self._encoded(rows)
        except Exception:  # which one and why is found out one by one
            return [_attempt(self.one, row) for row in rows]
        return [_attempt(self._checked, row) for row in encoded]

    def _encoded(self, rows: Sequence[TextRow]) -> list[TokenRow]:
        return self.tokeniser.rows([self._wrapped(row) for row in rows], self.answers)

    def _wrapped(self, row: TextRow) -> TextRow:
        if not self.rules.chat or row.conversational:
            return row
        chosen, rejected = (as_messages(text, "assistant") for text in (row.chosen, row.rejected))
        return TextRow(row.line, as_messages(row.prompt, "user"), chosen, rejected)

    def _checked(self, row: TokenRow) -> TokenRow:
        if not all((row.chosen, row.rejected)[: self.answers]):
            raise Unusable("an answer of no tokens")
        if self.answers == 2 and row.chosen == row.rejected:
            raise Unusable("chosen and rejected the same tokens")
        if row.length > self.rules.max_length:
            raise Unusable(f"longer than {self.rules.max_length} tokens")
        if max(max(ids, default=0) for ids in (row.prompt, row.chosen, row.rejected)) >= self.rules.vocabulary:
            raise Unusable("a token that the model does not have")
        return row

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


def _attempt(tried: Callable[[Any], TokenRow], row: TextRow | TokenRow) -> TokenRow | Unusable:
    try:
        return tried(row)
    except Unusable as e:
        return e
