"""The grammar's reward: how likely a text is under the target chain, on a scale where other text is worth -1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignfirst.worlds.grammar.language import F64, Chain, Language, Tokens

Reward = Callable[[Tokens, Tokens], F64]  # tokens [N, L], prompt [N] -> [N]


@dataclass(frozen=True)
class Likelihood:
    """l(x) = log-likelihood per token under the target chain at a temperature, against two exact means.

    `level` is E l of target text, `low` that of the other behaviours (each with the same weight, so that the reward of
    a text does not change with the target's weight).
    """

    chain: Chain
    level: float
    low: float

    @classmethod
    def of(cls, language: Language, temperature: float) -> Likelihood:
        chain = language.chains.only(language.target).at_temperature(temperature)
        means = language.chains.mean_of(chain, language.length) / language.length  # [K]
        return cls(chain, float(means[language.target]), float(np.delete(means, language.target).mean()))

    def per_token(self, tokens: Tokens) -> F64:
        return np.asarray(self.chain.logp(tokens)[:, 0] / tokens.shape[1])

    def scaled(self, tokens: Tokens) -> F64:
        """(l - level) / (level - low): 0 for typical target text, -1 for typical other text."""
        return np.asarray((self.per_token(tokens) - self.level) / (self.level - self.low))


def reward(language: Language, kind: str, temperature: float) -> Reward:
    """One of the rewards that the language knows exactly.

    `reflected`: -|scaled|, so that degenerate text, likelier than any that the target writes, is not rewarded.
    `clip`: min(scaled, 0). `none`: scaled. `posterior`: p(target | x, prompt).
    """
    if kind == "posterior":
        return lambda tokens, prompt: language.posterior(tokens, prompt)[:, language.target]
    likelihood = Likelihood.of(language, temperature)
    shapes: Mapping[str, Callable[[F64], Any]] = {
        "reflected": lambda scaled: -np.abs(scaled),
        "clip": lambda scaled: np.minimum(scaled, 0.0),
        "none": lambda scaled: scaled,
    }
    shape = shapes[kind]
    return lambda tokens, prompt: np.asarray(shape(likelihood.scaled(tokens)))
