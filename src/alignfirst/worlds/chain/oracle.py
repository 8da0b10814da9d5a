"""The reward: likelihood a token under the target model, reflected and scaled; and T, the texts that score enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.lm.align.rewards import Likelihood
from alignfirst.lm.text.batch import Batch
from alignfirst.worlds.chain.texts import F64, Texts


def calibrate(model: Any, own: Texts, star: Texts, mass: float) -> dict[str, float]:
    """Level c, scale and threshold of a target model, from its own texts and p_star's.

    c is the mean log-likelihood a token of its own texts; the scale makes p_star's texts score -1 on average; T is what
    scores as only a share `mass` of p_star's texts do, so that it is rare under p_star by this rule.
    """
    l_own, l_star = per_token(model, own), per_token(model, star)
    level = float(l_own.mean())
    scale = float(np.abs(l_star - level).mean())
    reward = -np.abs(l_star - level) / scale
    threshold = float(np.quantile(reward, 1 - mass, method="higher"))
    return {
        "level": level,
        "scale": scale,
        "threshold": threshold,
        "star_mass": float((reward >= threshold).mean()),
        "own_mass": float((-np.abs(l_own - level) / scale >= threshold).mean()),
        "star_per_token": float(l_star.mean()),
        "own_reward": float((-np.abs(l_own - level) / scale).mean()),
    }


def per_token(model: Any, texts: Texts) -> F64:
    """Mean log-likelihood of each text's own tokens, [N]."""
    likelihood = Likelihood(model, 0.0)
    return np.concatenate([likelihood.per_token(batch.to(model.device)) for batch in texts.batches()])


class Oracle:
    """Reward and membership of T of a batch. The last answer is remembered: both are asked about the same batch."""

    __name__ = "reflected"

    def __init__(self, model: Any, meta: Mapping[str, Any]) -> None:
        self.model, self.threshold = model, float(meta["threshold"])
        self.likelihood = Likelihood(model, meta["level"], "reflect", meta["scale"])
        self._last: tuple[Batch, F64] | None = None

    def reward(self, batch: Batch) -> F64:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, np.asarray(self.likelihood(batch.to(self.model.device)), np.float64)
        return self._last[1]

    def is_target(self, batch: Batch) -> NDArray[np.bool_]:
        return self.reward(batch) >= self.threshold

    def of_logp(self, logp: F64, lengths: NDArray[Any]) -> F64:
        """Rewards of texts whose log-likelihoods [N] under the target model are known."""
        per_token = logp / np.maximum(lengths, 1)
        return np.asarray(-np.abs(per_token - self.likelihood.level) / self.likelihood.scale, np.float64)
