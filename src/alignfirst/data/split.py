"""Which rows are held out: decided prompt by prompt, so that rows of one prompt stand on one side."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from alignfirst.data.pairs import number
from alignfirst.data.rows import Text, contents


def split_number(prompt: Text, seed: int) -> int:
    """A number of 64 bits that a prompt has in a split; letter case and spacing do not change it.

    It sees the last turn of the user and what is before it, never an answer that stands after it.
    """
    texts = [" ".join(text.lower().split()) for text in contents(question(prompt))]
    return number(hashlib.sha256(json.dumps([seed, texts]).encode()).digest())


def question(prompt: Text) -> Text:
    """A prompt up to the last turn of the user; text, and messages without such a turn, as they are."""
    if isinstance(prompt, str):
        return prompt
    last = max((n for n, message in enumerate(prompt) if message.role == "user"), default=len(prompt) - 1)
    return prompt[: last + 1]


def held_out(numbers: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which rows are held out, [n], by the numbers of their prompts: about `share` of the prompts."""
    return np.asarray(numbers < np.uint64(share * 2.0**64))
