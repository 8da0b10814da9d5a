"""SFT and distillation: both fit a mixture by EM to samples of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignfirst.worlds.mog import em, kernel, streams
from alignfirst.worlds.mog.layout import F32, LOGITS


@dataclass(frozen=True)
class FitSettings:
    """How EM fits one mixture; the variance floor is absolute."""

    components: int
    samples: int
    restarts: int
    iterations: int
    tolerance: float
    floor: float


@dataclass(frozen=True)
class Rehearsal:
    """A share of the distillation set is replaced by samples of `p_target`, theta[5, K]."""

    share: float
    p_target: F32


def fit_sft(p_star: F32, seeds: Sequence[int], s: FitSettings) -> em.EMFit:
    """The high-recall model of every seed: EM on samples of p_star, theta[5, K*]."""
    everyone = np.arange(len(seeds))
    x = _draw(np.repeat(p_star[None], len(seeds), 0), seeds, everyone, "p_star", 0, s.samples)
    return _fit(x, seeds, everyone, "sft-starts", 0, s)


def distil(
    teacher: F32,
    seeds: Sequence[int],
    row: NDArray[np.int64],
    selectivity: float,
    occurrence: int,
    s: FitSettings,
    rehearsal: Rehearsal | None = None,
) -> em.EMFit:
    """Students of R teachers, theta[R, 5, K]: sharpen, sample, EM. Run r belongs to seeds[row[r]]."""
    x = _draw(sharpen(teacher, selectivity), seeds, row, "distil", occurrence, s.samples)
    if rehearsal is not None:
        share = round(rehearsal.share * s.samples)
        target = np.repeat(rehearsal.p_target[None], len(row), 0)
        x[:, :, :share] = _draw(target, seeds, row, "rehearsal", occurrence, share)
    return _fit(x, seeds, row, "distil-starts", occurrence, s)


def sharpen(theta: F32, selectivity: float) -> F32:
    """Component weights w_k^s, normalised: logits times s."""
    out = theta.copy()
    out[:, LOGITS] *= np.float32(selectivity)
    return out


def _draw(theta: F32, seeds: Sequence[int], row: NDArray[np.int64], purpose: str, occurrence: int, n: int) -> F32:
    u, z = streams.draws(seeds, purpose, occurrence, n)
    x = np.empty((len(row), 2, n), np.float32)
    kernel.sample(theta, u, z, row, x)
    return x


def _fit(
    x: F32, seeds: Sequence[int], row: NDArray[np.int64], purpose: str, occurrence: int, s: FitSettings
) -> em.EMFit:
    shape = (s.restarts, s.components)
    u = np.stack([streams.stream(seed, purpose, occurrence).random(shape, dtype=np.float32) for seed in seeds])
    return em.fit(x, u, row, s.iterations, s.tolerance, s.floor)
