"""PPO's baseline: a value function learned by ridge regression on a frozen model's hidden states.

The critic is linear and solved in closed form: no second optimiser, no learning rate, the same numbers every time.
Features come from a model that is not trained, so that what was learned stays true while the policy moves. Returns are
whole (no bootstrapping, lambda = 1): responses are short, and a wrong critic then costs noise but no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch, Floats
from alignfirst.lm.text.logprobs import response_states


@dataclass(frozen=True)
class ValueSettings:
    """`ridge` is relative to the features' mean square; `memory` is what an older batch weighs against the newest."""

    ridge: float = 1e-2
    memory: float = 0.5

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise InputError("the value's ridge must be > 0", self.ridge, "1e-2 is the default.")
        if not 0 <= self.memory < 1:
            raise InputError("the value's memory must be in [0, 1)", self.memory, "0.5 is the default.")


class Critic:
    """V(state) = w . [state, 1], by recursive least squares with forgetting."""

    def __init__(self, settings: ValueSettings) -> None:
        self.settings = settings
        self.gram: Floats | None = None  # [H + 1, H + 1]
        self.moment: Floats | None = None  # [H + 1]
        self.weights: Floats | None = None

    def predict(self, states: Floats) -> Floats:
        """[..., H] -> [...]; 0 as long as nothing has been learned."""
        if self.weights is None:
            return np.zeros(states.shape[:-1])
        return states @ self.weights[:-1] + self.weights[-1]

    def learn(self, gram: Floats, moment: Floats) -> None:
        """Take in a batch by its sums (`sums`), from all processes together."""
        memory = self.settings.memory
        self.gram = gram if self.gram is None else memory * self.gram + gram
        self.moment = moment if self.moment is None else memory * self.moment + moment
        features = len(moment) - 1
        penalty = self.settings.ridge * np.trace(self.gram[:-1, :-1]) / features
        shrink = np.append(np.full(features, penalty), 0.0)  # the constant is free
        self.weights = np.linalg.lstsq(self.gram + np.diag(shrink), self.moment, rcond=None)[0]

    def state(self) -> dict[str, Any]:
        """As tensors; nothing as long as nothing has been learned."""
        if self.gram is None or self.moment is None or self.weights is None:
            return {}
        return {name: torch.from_numpy(getattr(self, name)) for name in ("gram", "moment", "weights")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Know what `state` said."""
        for name in ("gram", "moment", "weights"):
            setattr(self, name, state[name].numpy() if name in state else None)


def sums(states: Floats, returns: Floats) -> tuple[Floats, Floats]:
    """states [n, H], returns [n] -> X'X and X'y with a column of ones."""
    x = np.concatenate([states, np.ones((len(states), 1))], axis=1)
    return x.T @ x, x.T @ returns


def explained(returns: Floats, values: Floats) -> float | None:
    """Share of the returns' variance that the values explain; None where returns do not vary."""
    variance = float(returns.var())
    return None if variance < 1e-12 else float(1 - (returns - values).var() / variance)


@torch.no_grad()
def states_of(model: Any, batch: Batch, positions: int) -> Floats:
    """What is known before each of the first response tokens, [positions, B, H + 2]: hidden states, and how far on.

    Rotary attention alone cannot tell `a a` from `a a a`, but what is still to come differs.
    """
    states = response_states(model, batch)[:, :positions].transpose(0, 1).double().cpu().numpy()  # [positions, B, H]
    done = np.arange(positions) / batch.mask.shape[1]
    clock = np.broadcast_to(np.stack([done, done**2], 1)[:, None], (positions, len(batch), 2))
    return np.concatenate([states, clock], axis=2)
