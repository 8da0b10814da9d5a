"""A tiny Llama with a tokenizer of words, as tests of files load and save it."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignfirst.errors import InputError
from alignfirst.lm.models import load as lm

TINY = lm.TinyLlama(vocab=12, hidden=16, layers=2, heads=4, kv_heads=2, intermediate=24, positions=32)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tokenizer(words: str = "a b c d e f g h i j", template: str | None = None) -> PreTrainedTokenizerFast:
    vocab = {w: n for n, w in enumerate(["<unk>", "<end>", *words.split()])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    made.chat_template = template
    return made


def refused(*words: str) -> Any:
    return pytest.raises(InputError, match="(?s)" + ".*".join(words))
