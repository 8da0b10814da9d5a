"""The cost of some work, before it is done or as it was counted: the same six numbers for both."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class Price:
    """What passes through models, the floating-point operations of that, and bytes left in the store.

    The first three count tokens, padding included (in mixtures: points). The three kinds are told apart because
    machines do them at different speeds: sampling goes token by token.
    """

    sampled: float = 0
    scored: float = 0
    trained: float = 0
    sampling: float = 0.0  # operations
    scoring: float = 0.0
    training: float = 0.0
    stored: float = 0  # bytes

    def __add__(self, other: Price) -> Price:
        return Price(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Price:
        return Price(*(a * times for a in astuple(self)))

    def counted(self) -> dict[str, Any]:
        """What artefacts keep of it: tokens by kind, and all operations."""
        tokens = {name: int(getattr(self, name)) for name in ("sampled", "scored", "trained")}
        return {"tokens": tokens, "flops": float(self.flops)}

    @property
    def tokens(self) -> float:
        return self.sampled + self.scored + self.trained

    @property
    def flops(self) -> float:
        return self.sampling + self.scoring + self.training
