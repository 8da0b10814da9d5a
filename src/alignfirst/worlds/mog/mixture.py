"""Mixtures of Gaussians in plain NumPy, and the modes of p_star."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from alignfirst.worlds.mog.layout import F32, LOG_SD, LOGITS, MEAN

F64 = NDArray[np.float64]

# The 3 x 3 grid without its centre, x outer and y inner.
MODES: tuple[tuple[float, float], ...] = tuple(
    (float(x), float(y)) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)
)
TARGET_SDS = 3.0  # T reaches this many standard deviations from a target mode


@dataclass(frozen=True)
class Mixture:
    """A diagonal mixture: weights[K] (sum 1), means[K, 2], sds[K, 2]."""

    weights: F64
    means: F64
    sds: F64

    @classmethod
    def of_theta(cls, theta: F32) -> Mixture:
        """From kernel parameters theta[5, K]."""
        t = theta.astype(float)
        weights = np.exp(log_softmax(t[LOGITS]))
        return cls(weights, t[MEAN : MEAN + 2].T.copy(), np.exp(t[LOG_SD : LOG_SD + 2]).T.copy())

    def theta(self) -> F32:
        """Kernel parameters [5, K]; a zero weight has the logit -inf."""
        with np.errstate(divide="ignore"):
            logits = np.log(self.weights)
        return np.concatenate([logits[None], self.means.T, np.log(self.sds).T]).astype(np.float32)

    def plain(self) -> dict[str, Any]:
        """Rounded plain data, for the report."""
        return {
            "weights": [round(float(w), 6) for w in self.weights],
            "means": [[round(float(v), 5) for v in m] for m in self.means],
            "sds": [[round(float(v), 5) for v in s] for s in self.sds],
        }


def p_star(settings: Mapping[str, Any]) -> Mixture:
    """The ground truth, from settings `weights` and `variance`."""
    weights = np.asarray(settings["weights"], float)
    sds = np.full((len(MODES), 2), np.sqrt(settings["variance"]))
    return Mixture(weights / weights.sum(), np.array(MODES), sds)


def p_target(settings: Mapping[str, Any]) -> Mixture:
    """p_star restricted to its target components (their full Gaussians), renormalised."""
    whole = p_star(settings)
    chosen = target_modes(settings["targets"])
    weights = whole.weights[chosen]
    return Mixture(weights / weights.sum(), whole.means[chosen], whole.sds[chosen])


def target_modes(targets: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the modes at the given points."""
    return [MODES.index((float(x), float(y))) for x, y in targets]


def target_radius(settings: Mapping[str, Any]) -> float:
    """Radius of the region T around each target mode."""
    return TARGET_SDS * float(np.sqrt(settings["variance"]))
