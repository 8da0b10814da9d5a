"""What training costs and what it looks like on the way: token counts, operations, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from alignfirst.costs.price import Price
from alignfirst.costs.transformer import TransformerSize
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.training.processes import Team

Log = Callable[[int, Mapping[str, float | None]], None]
Curves = dict[str, list[float | None]]

_KNOWN: WeakKeyDictionary[nn.Module, TransformerSize] = WeakKeyDictionary()


@dataclass
class Tally:
    """What passed through models so far: tokens, padding included, and operations, by the formulas of `costs`."""

    spent: Price = field(default_factory=Price)

    def sample(self, model: Any, batch: Batch) -> None:
        """The batch's responses were drawn. Rows that ended wait for the longest."""
        prompt, new = round(float(batch.start.float().mean())), int(batch.lengths.max())
        found = size_of(model).sample(len(batch), prompt, new)
        self.spent += replace(found, sampled=batch.n_tokens)

    def score(self, model: Any, batch: Batch, whole: bool = False) -> None:
        """Log-probabilities of its responses. `whole`: of every token of the vocabulary, at every position of them."""
        rows, length = batch.tokens.shape
        self.spent += size_of(model).score(rows, length, _predicted(batch, whole))

    def train(self, model: Any, batch: Batch, whole: bool = False) -> None:
        """Forward and backward."""
        rows, length = batch.tokens.shape
        self.spent += size_of(model).train(rows, length, _predicted(batch, whole), whole)

    def set(self, counts: Mapping[str, Any]) -> None:
        """Take over what `asdict` gave."""
        self.spent = Price(**counts["spent"])

    def over(self, team: Team) -> Tally:
        """The sum over all processes."""
        own = np.array([astuple(self.spent)], dtype=np.float64)
        return Tally(Price(*team.gather(own).sum(0).tolist()))

    @property
    def flops(self) -> float:
        return self.spent.flops

    def tokens(self) -> dict[str, int]:
        return dict(self.spent.counted()["tokens"])


def _predicted(batch: Batch, whole: bool) -> int:
    return batch.mask.numel() if whole else int(batch.mask.sum())


def size_of(model: Any) -> TransformerSize:
    """Sizes of a model that is being used, and which of its weights learn; looked at once."""
    found = _KNOWN.get(model)
    if found is None:
        found = _KNOWN[model] = _measured(model)
    return found


def size_of_config(config: Any) -> TransformerSize:
    """Sizes of a model that need not be made. `config`: of transformers."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return _measured(AutoModelForCausalLM.from_config(config))


def _measured(model: Any) -> TransformerSize:
    c = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    ends = {id(head), id(getattr(model.get_input_embeddings(), "weight", head))}
    body = [p for p in model.parameters() if p.ndim > 1 and id(p) not in ends]
    total = sum(p.numel() for p in body)
    heads = getattr(c, "num_attention_heads", 0)  # a model may have no attention
    return TransformerSize(
        body=total,
        head=head.numel(),
        vocabulary=head.shape[0],
        layers=getattr(c, "num_hidden_layers", 0),
        width=heads and heads * (getattr(c, "head_dim", None) or c.hidden_size // heads),
        parameters=sum(p.numel() for p in model.parameters()),
        learned=sum(p.numel() for p in body if p.requires_grad) / max(1, total),
        learned_head=bool(head.requires_grad),
    )


@dataclass
class TrainingCurves:
    """Curves, one value an update; None where something was not measured."""

    log: Log | None = None
    updates: int = 0
    curves: Curves = field(default_factory=dict)

    def add(self, values: Mapping[str, float | None]) -> None:
        for name in values:
            self.curves.setdefault(name, [None] * self.updates)
        for name, curve in self.curves.items():
            curve.append(values.get(name))
        if self.log is not None:
            self.log(self.updates, values)
        self.updates += 1
