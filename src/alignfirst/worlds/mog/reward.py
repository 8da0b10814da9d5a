"""The oracle: reward of points, and what annotators say of pairs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.theory.objectives import preference_probability
from alignfirst.worlds.mog.kernel import proximity
from alignfirst.worlds.mog.layout import F32


@dataclass(frozen=True)
class Oracle:
    """Reward exp(-d^2 / (2 width^2)), d to the nearest target of an annotator; several annotators have weights."""

    targets: tuple[F32, ...]  # one [J, 2] an annotator
    weights: NDArray[np.float64]  # sums to 1
    width: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Oracle:
        """From a node's settings: `targets`, `width` and, where several people judge, `annotators`."""
        annotators = settings["annotators"] or [{"targets": settings["targets"], "weight": 1.0}]
        weights = np.array([a["weight"] for a in annotators], float)
        points = tuple(np.array(a["targets"], np.float32).reshape(-1, 2) for a in annotators)
        return cls(points, weights / weights.sum(), float(settings["width"]))

    def each(self, x: F32) -> F32:
        """x[R, 2, N] -> rewards [A, R, N], one layer an annotator."""
        out = np.empty((len(self.targets), x.shape[0], x.shape[2]), np.float32)
        for layer, targets in zip(out, self.targets, strict=True):
            proximity(x, targets, self.width, layer)
        return out

    def __call__(self, x: F32) -> F32:
        """x[R, 2, N] -> [R, N]: what RL sees, the weighted mean over annotators."""
        rewards = self.each(x)
        if len(rewards) == 1:
            return np.asarray(rewards[0])
        return np.tensordot(self.weights.astype(np.float32), rewards, 1)

    def on_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Any array of points [..., 2] -> reward [...]."""
        x = np.ascontiguousarray(points.reshape(1, -1, 2).transpose(0, 2, 1), dtype=np.float32)
        return np.asarray(self(x), dtype=float).reshape(points.shape[:-1])


@dataclass(frozen=True)
class Labels:
    """How a pair is labelled: Bradley-Terry with a scale, or argmax; flipped with a probability."""

    kind: str  # "bradley-terry" or "hard"
    scale: float
    flip: float

    def first_preferred(self, rewards: F32, oracle: Oracle, u: NDArray[np.float32]) -> NDArray[np.bool_]:
        """rewards[A, R, 2N] of first then second members, uniforms u[R, 2, N] -> [R, N]."""
        judge = np.searchsorted(np.cumsum(oracle.weights)[:-1], u[:, 0], side="right")  # [R, N]
        pairs = u.shape[2]
        judged = [np.take_along_axis(half, judge[None], 0)[0] for half in (rewards[..., :pairs], rewards[..., pairs:])]
        if self.kind == "hard":
            p = self.flip + (1 - 2 * self.flip) * (judged[0] > judged[1])
        else:
            p = preference_probability(judged[0], judged[1], self.scale, self.flip)
        return np.asarray(u[:, 1] < p)
