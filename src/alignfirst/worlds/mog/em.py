"""Expectation-maximisation for diagonal mixtures: k-means++ starts, restarts, early stopping, variance floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.worlds.mog.kernel import TILE, _moments, _responsibilities, compiled, log_weights
from alignfirst.worlds.mog.layout import F32, LOG_SD, LOGITS, MEAN

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class EMFit:
    theta: F32  # [R, 5, K]
    log_likelihood: NDArray[np.float64]  # [R], nats a sample, of the best restart
    iterations: I64  # [R], summed over restarts


def fit(x: F32, u: F32, row: I64, iterations: int, tolerance: float, floor: float) -> EMFit:
    """Fit R mixtures of K components; the restart with the highest likelihood wins.

    x[R, 2, N]: samples. u[S, restarts, K]: uniforms that choose the k-means++ centres, run r uses u[row[r]].
    Stops when the mean log-likelihood gains less than `tolerance` nats; variances never fall below `floor`.
    """
    x = np.ascontiguousarray(x)  # another layout would compile a second, slower kernel
    runs, restarts, components = x.shape[0], u.shape[1], u.shape[2]
    theta = np.empty((runs, restarts, 5, components), np.float32)
    score = np.empty((runs, restarts))
    steps = np.empty((runs, restarts), np.int64)
    _fit(x, u, row, iterations, tolerance, floor, theta, score, steps)
    best = np.argmax(np.where(np.isnan(score), -np.inf, score), axis=1)
    pick = np.arange(runs), best
    return EMFit(theta[pick], score[pick], steps.sum(1))


@compiled
def _fit(
    x: F32, u: F32, row: I64, iterations: int, tolerance: float, floor: float, theta: F32, score: Any, steps: I64
) -> None:
    for r in range(x.shape[0]):
        for s in range(u.shape[1]):
            kmeans_plus_plus(x[r], u[row[r], s], floor, theta[r, s])
            score[r, s], steps[r, s] = _climb(x[r], iterations, tolerance, floor, theta[r, s])


@compiled
def kmeans_plus_plus(x: F32, u: F32, floor: float, theta: F32) -> None:
    """Start of one fit (Arthur & Vassilvitskii 2007): centres drawn by squared distance, then hard assignment."""
    n, components = x.shape[1], u.size
    distance = np.full(n, np.inf, np.float32)
    label = np.zeros(n, np.int64)
    centre = min(int(u[0] * n), n - 1)
    for k in range(components):
        if k > 0:
            centre = _draw(distance, u[k])
        cx, cy = x[0, centre], x[1, centre]
        for i in range(n):
            d = (x[0, i] - cx) ** 2 + (x[1, i] - cy) ** 2
            if d < distance[i]:
                distance[i] = d
                label[i] = k
    total = np.zeros((5, components))
    for i in range(n):
        k = label[i]
        total[0, k] += 1.0
        total[1, k] += x[0, i]
        total[2, k] += x[1, i]
        total[3, k] += np.float64(x[0, i]) ** 2
        total[4, k] += np.float64(x[1, i]) ** 2
    for k in range(components):
        count = max(total[0, k], 1.0)
        theta[LOGITS, k] = np.log(count / n)
        for d in range(2):
            mean = total[1 + d, k] / count
            theta[MEAN + d, k] = mean
            theta[LOG_SD + d, k] = 0.5 * np.log(max(total[3 + d, k] / count - mean * mean, floor))


@compiled
def _draw(weight: F32, u: float) -> int:
    """Index drawn with probability proportional to weight; 0 where all weights are zero."""
    total = 0.0
    for i in range(weight.size):
        total += weight[i]
    goal, cumulative = u * total, 0.0
    for i in range(weight.size):
        cumulative += weight[i]
        if cumulative > goal:
            return i
    return 0


@compiled
def _climb(x: F32, iterations: int, tolerance: float, floor: float, theta: F32) -> tuple[float, int]:
    """EM in place on one mixture; returns (mean log-likelihood, iterations)."""
    n, components = x.shape[1], theta.shape[1]
    logw = np.empty(components, np.float32)
    e = np.empty((components, TILE), np.float32)
    total, logp, inverse = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    sums = np.empty((5, components))
    last: Any = -np.inf
    for step in range(iterations):
        sums[:] = 0.0
        likelihood: Any = 0.0
        log_weights(theta, logw)
        for a in range(0, n, TILE):
            b = min(a + TILE, n)
            _responsibilities(theta, logw, x[0, a:b], x[1, a:b], e, total, logp[: b - a])
            tile = np.float32(0.0)
            for i in range(b - a):
                inverse[i] = np.float32(1.0) / total[i]
                tile += logp[i]
            likelihood += tile
            _moments(theta, x[0, a:b], x[1, a:b], inverse, e, sums)
        _maximise(sums, n, floor, theta)
        likelihood /= n
        if likelihood - last < tolerance:
            return likelihood, step + 1
        last = likelihood
    return last, iterations


@compiled
def _maximise(sums: NDArray[np.float64], n: int, floor: float, theta: F32) -> None:
    """M-step from moments taken about the current means in current standard deviations."""
    for k in range(theta.shape[1]):
        mass = max(sums[0, k], 1e-12)
        theta[LOGITS, k] = np.log(mass / n)
        for d in range(2):
            sd = np.exp(np.float64(theta[LOG_SD + d, k]))
            shift = sums[1 + d, k] / mass
            theta[MEAN + d, k] += sd * shift
            variance = sd * sd * (sums[3 + d, k] / mass - shift * shift)
            theta[LOG_SD + d, k] = 0.5 * np.log(max(variance, floor))
