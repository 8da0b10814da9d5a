"""Models and rewards of the grammar world, by what artefacts and settings say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignfirst.lm.align.rewards import named
from alignfirst.lm.models.load import TinyLlama, from_arrays
from alignfirst.lm.text.batch import Batch
from alignfirst.nodes import Artefact
from alignfirst.process_environment import user_modules
from alignfirst.worlds.grammar import oracle
from alignfirst.worlds.grammar.language import Language, Tokens

AT_ONCE = 512  # texts in one call when a model is measured


def model_of(artefact: Artefact) -> Any:
    """The transformer that an artefact holds."""
    return from_arrays(TinyLlama(**artefact.meta["config"]), artefact.arrays)


def prompt_of(lang: Language, batch: Batch) -> Tokens:
    """The number of each row's prompt, [B]."""
    return np.asarray(batch.tokens[:, 0].cpu().numpy() - lang.words)


def reward_of(s: Mapping[str, Any], lang: Language) -> Callable[[Batch], Any]:
    """The reward of a batch: one that the language knows, or the user's function of texts."""
    if ":" in s["kind"]:
        return named(s["kind"], Decoder(lang), user_modules())
    exact = oracle.reward(lang, s["kind"], s.get("temperature", 1.0))
    return lambda batch: exact(batch.response_array, prompt_of(lang, batch))


class Decoder:
    """The part of a tokenizer that a reward of texts needs."""

    def __init__(self, lang: Language) -> None:
        self.lang = lang

    def batch_decode(self, rows: Sequence[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Token ids as words; prompts are shown by their marks, for they have no other text."""
        return [self.lang.text(np.asarray(row)) for row in rows]
