"""Texts as they lie in the store: tokens in the smallest integers that hold them, and how many are a text's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.lm.io import numpy_api
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.training.epochs import Corpus
from alignfirst.nodes import Artefact, Load, Node

F64 = NDArray[np.float64]
TOGETHER = 256  # texts in one forward pass that trains nothing


@dataclass(frozen=True)
class Texts:
    """N texts after one prompt. `logp`: log-probability of each, when it was drawn, under what drew it."""

    prompt: NDArray[np.int64]  # [P]
    tokens: NDArray[np.integer[Any]]  # [N, L]
    lengths: NDArray[np.integer[Any]]  # [N]
    logp: F64  # [N]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def total(self) -> int:
        """Tokens of all texts."""
        return int(self.lengths.sum())

    def rows(self, index: Any) -> Batch:
        return numpy_api.masked_batch(self.prompt, self.tokens[index], self.lengths[index])

    def first(self, n: int) -> Texts:
        return Texts(self.prompt, self.tokens[:n], self.lengths[:n], self.logp[:n])

    def batches(self) -> Iterator[Batch]:
        return (self.rows(slice(a, a + TOGETHER)) for a in range(0, len(self), TOGETHER))

    @property
    def corpus(self) -> Corpus:
        return Corpus(len(self), self.rows)

    @property
    def fed(self) -> int:
        """Tokens that a pass over all of them feeds to a model: prompts and padding count."""
        return len(self) * (len(self.prompt) + int(self.tokens.shape[1]))


def stored(tokens: NDArray[Any], lengths: NDArray[Any], logp: F64, vocabulary: int) -> dict[str, NDArray[Any]]:
    """Arrays of a shard."""
    kind = np.uint16 if vocabulary <= 1 << 16 else np.int32
    return {"tokens": tokens.astype(kind), "lengths": lengths.astype(np.int32), "logp": logp.astype(np.float32)}


def of_shards(prompt: NDArray[np.int64], shards: Sequence[Artefact]) -> Texts:
    tokens, lengths, logp = (np.concatenate([s.arrays[name] for s in shards]) for name in ("tokens", "lengths", "logp"))
    return Texts(prompt, tokens, lengths, logp.astype(np.float64))


def shards_of(node: Node, load: Load, role: str) -> list[Artefact]:
    """Artefacts of one role's shards, in their order."""
    keys = [node.inputs[name] for name in sorted(node.inputs) if name.startswith(f"{role}-")]
    return [load(key) for key in keys]
