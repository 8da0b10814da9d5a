"""Floating-point operations of language models, by formula: two for every multiplication with a weight, attention too.

Counted as `torch.utils.flop_counter` counts them (which tests hold against it): matrix products alone, attention over
whole squares, and the head's logits twice where they are computed again on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.head import TILE

_KNOWN: WeakKeyDictionary[nn.Module, Sizes] = WeakKeyDictionary()


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a model: weights in its layers and its head, and what attention works on."""

    body: int  # weights that every token is multiplied with, head and embeddings left out
    head: int
    vocabulary: int
    layers: int
    width: int  # heads x width of one
    learned: float = 1.0  # share of the body's weights that have a gradient (adapters: few)
    learned_head: bool = True
    parameters: int = 0

    @classmethod
    def of(cls, model: Any) -> Sizes:
        """Of a model as it is now; which weights are trained is looked at each time."""
        c = model.config.get_text_config()
        head = model.get_output_embeddings().weight
        ends = {id(head), id(getattr(model.get_input_embeddings(), "weight", head))}
        body = [p for p in model.parameters() if p.ndim > 1 and id(p) not in ends]
        total = sum(p.numel() for p in body)
        heads = getattr(c, "num_attention_heads", 0)  # a model may have no attention
        return cls(
            body=total,
            head=head.numel(),
            vocabulary=head.shape[0],
            layers=getattr(c, "num_hidden_layers", 0),
            width=heads and heads * (getattr(c, "head_dim", None) or c.hidden_size // heads),
            learned=sum(p.numel() for p in body if p.requires_grad) / max(1, total),
            learned_head=bool(head.requires_grad),
            parameters=sum(p.numel() for p in model.parameters()),
        )

    @classmethod
    def of_config(cls, config: Any) -> Sizes:
        """Of a model that need not be made."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return cls.of(AutoModelForCausalLM.from_config(config))

    def forward(self, rows: float, length: float, predicted: float) -> float:
        """`rows` texts of `length` tokens, next-token logits at `predicted` positions in all."""
        return 2.0 * self.body * rows * length + self._attention(rows, length, length) + 2.0 * self.head * predicted

    def train(self, rows: float, length: float, predicted: float, whole: bool = False) -> float:
        """Forward and backward of the same; every learned weight costs another product, logits may be made twice."""
        back = 1.0 + self.learned
        again = not whole and predicted > max(1, TILE // self.vocabulary)
        head = 2.0 + self.learned_head + again
        body = 2.0 * (1.0 + back) * self.body * rows * length
        return body + 3.0 * self._attention(rows, length, length) + 2.0 * head * self.head * predicted

    def sample(self, rows: float, prompt: float, new: float) -> float:
        """Drawing `new` tokens after prompts, with a cache of what came before."""
        steps = max(0, new - 1)
        read = self._attention(rows, prompt, prompt) + self._attention(rows, steps, prompt + new / 2)
        return 2.0 * self.body * rows * (prompt + steps) + read + 2.0 * self.head * rows * new

    def _attention(self, rows: float, queries: float, keys: float) -> float:
        return 4.0 * self.layers * self.width * rows * queries * keys


def scored(model: Any, batch: Batch, whole: bool = False) -> float:
    """Log-probabilities of a batch's responses: the last token is predicted, not read.

    `whole`: of every token of the vocabulary, at every response position, padding too.
    """
    predicted = batch.mask.numel() if whole else int(batch.mask.sum())
    return sizes(model).forward(len(batch), batch.tokens.shape[1] - 1, predicted)


def trained(model: Any, batch: Batch, whole: bool = False) -> float:
    """The same with gradients."""
    predicted = batch.mask.numel() if whole else int(batch.mask.sum())
    return sizes(model).train(len(batch), batch.tokens.shape[1] - 1, predicted, whole)


def drawn(model: Any, batch: Batch) -> float:
    """Drawing a batch's responses. Rows that ended wait for the longest."""
    return sizes(model).sample(len(batch), round(float(batch.start.float().mean())), int(batch.lengths.max()))


def sizes(model: Any) -> Sizes:
    """Sizes of a model that is being used; looked at once."""
    found = _KNOWN.get(model)
    if found is None:
        found = _KNOWN[model] = Sizes.of(model)
    return found
