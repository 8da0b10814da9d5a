"""Texts as they lie in the store: tokens in the smallest integers that hold them, and how many are a text's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.costs.price import Price
from alignfirst.costs.transformer import TransformerSize
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.nodes import Artefact, Load, Node

F64 = NDArray[np.float64]
TOGETHER = 256  # texts in one call that trains nothing


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
        return Batch.of_arrays(self.prompt, self.tokens[index], self.lengths[index])

    def first(self, n: int) -> Texts:
        return Texts(self.prompt, self.tokens[:n], self.lengths[:n], self.logp[:n])

    def batches(self) -> Iterator[Batch]:
        return (self.rows(slice(a, a + TOGETHER)) for a in range(0, len(self), TOGETHER))

    def scoring_price(self, judge: TransformerSize) -> Price:
        """Of all of them under a model: prompts and padding count."""
        return judge.score(len(self), len(self.prompt) + self.tokens.shape[1], self.total)

    def drawing_price(self, model: TransformerSize) -> Price:
        """Of drawing all of them. Texts that ended wait for the others."""
        return model.sample(len(self), len(self.prompt), self.tokens.shape[1])


def draw_texts(
    model: Any, prompts: Prompts, n: int, seed: int, temperature: float = 1.0, filtered: str | None = None
) -> Texts:
    """n texts after the one prompt; log-probabilities are those of the distribution drawn from."""
    drawn = draw_answers(model, prompts, np.zeros(n, np.int64), seed, temperature, filtered=filtered, at_once=TOGETHER)
    lengths = drawn.batch.lengths.cpu().numpy()
    return Texts(np.asarray(prompts.rows[0]), drawn.batch.response_array, lengths, drawn.total_logp)


def score_texts(model: Any, texts: Texts) -> F64:
    """Log-probability of every text under a model, [N] nats."""
    return np.concatenate([score_batch(model, batch).sum(1) for batch in texts.batches()])


def stored(texts: Texts, vocabulary: int) -> dict[str, NDArray[Any]]:
    """Arrays of a shard."""
    kind = np.uint16 if vocabulary <= 1 << 16 else np.int32
    return {
        "tokens": texts.tokens.astype(kind),
        "lengths": texts.lengths.astype(np.int32),
        "logp": texts.logp.astype(np.float32),
    }


def of_shards(prompt: NDArray[np.int64], shards: Sequence[Artefact]) -> Texts:
    tokens, lengths, logp = (np.concatenate([s.arrays[name] for s in shards]) for name in ("tokens", "lengths", "logp"))
    return Texts(prompt, tokens, lengths, logp.astype(np.float64))


def shards_of(node: Node, load: Load, role: str) -> list[Artefact]:
    """Artefacts of one role's shards, in their order."""
    keys = [node.inputs[name] for name in sorted(node.inputs) if name.startswith(f"{role}-")]
    return [load(key) for key in keys]
