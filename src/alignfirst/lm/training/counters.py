"""What training costs and what it looks like on the way: token counts, FLOPs, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignfirst.lm.text.batch import Batch
from alignfirst.lm.training import flops
from alignfirst.lm.training.processes import Team

Log = Callable[[int, Mapping[str, float | None]], None]
Curves = dict[str, list[float | None]]


@dataclass
class Tally:
    """Tokens that passed through models, padding included, and the floating-point operations of that.

    Two counts, for two purposes. `flops` go by weights and tokens alone (Kaplan et al. 2020: 2 a token forward, 6 with
    the way back), so that a study of the paper can be priced exactly from its settings, before a text is drawn: the
    column `flops` of grammar and chain. `products` are what matrix products really take (`lm.flops`, held against
    torch's counter): attention, no head where no logits are asked for, frozen weights under adapters. A budget that
    adapters, long prompts and two sizes of model share must go by these: the column `flops` of own models.
    """

    sampled: int = 0
    scored: int = 0
    trained: int = 0
    flops: float = 0.0
    products: float = 0.0

    def sample(self, model: Any, fed: Batch | int) -> None:
        """`fed`: a batch, or so many tokens."""
        tokens = fed if isinstance(fed, int) else fed.n_tokens
        self.sampled += tokens
        self.flops += 2.0 * multiplying(model) * tokens
        self.products += 0.0 if isinstance(fed, int) else flops.drawn(model, fed)

    def score(self, model: Any, fed: Batch | int, whole: bool = False) -> None:
        """`whole`: the distribution over the vocabulary, not the log-probabilities of the tokens alone."""
        tokens = fed if isinstance(fed, int) else fed.n_tokens
        self.scored += tokens
        self.flops += 2.0 * multiplying(model) * tokens
        self.products += 0.0 if isinstance(fed, int) else flops.scored(model, fed, whole)

    def train(self, model: Any, batch: Batch, whole: bool = False) -> None:
        """Forward and backward."""
        self.trained += batch.n_tokens
        self.flops += 6.0 * multiplying(model) * batch.n_tokens
        self.products += flops.trained(model, batch, whole)

    def set(self, counts: Mapping[str, float]) -> None:
        """Take over what `asdict` gave."""
        for name, value in counts.items():
            setattr(self, name, value)

    def over(self, team: Team) -> Tally:
        """The sum over all processes."""
        own = np.array([[self.sampled, self.scored, self.trained, self.flops, self.products]], dtype=np.float64)
        sampled, scored, trained, flops, products = team.gather(own).sum(0).tolist()
        return Tally(int(sampled), int(scored), int(trained), flops, products)

    def tokens(self) -> dict[str, int]:
        return {"sampled": self.sampled, "scored": self.scored, "trained": self.trained}


def multiplying(model: Any) -> int:
    """Parameters that every token is multiplied with: all but an input embedding that is not also the output's."""
    total = sum(p.numel() for p in model.parameters())
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return total if tied else total - embedding.weight.numel()


@dataclass
class Book:
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
