"""The nearest mixture of a given size: deterministic EM on a density that is given on a grid.

This is what a compact model keeps of a distribution that it is fitted to with endless samples. Diagonal Gaussians, 2-D.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alignfirst.errors import InputError
from alignfirst.theory.tilt import FloatArray, Grid, axis_densities, cell_masses

FLOOR = 1e-3  # smallest variance of a projected component, as in the distillation it stands for
STARTS = 16  # projections begin at so many deterministic k-means++ seedings
SCREENING = 20  # iterations on a grid of half the resolution
FINALISTS = 4  # so many of the best go on to convergence
ITERATIONS = 100
TOLERANCE = 1e-4  # nats an iteration
GOLDEN = 0.6180339887498949


class Mixture(NamedTuple):
    """weights [K], means [K, 2], sds [K, 2]; inside EM with one more axis in front."""

    weights: FloatArray
    means: FloatArray
    sds: FloatArray


def merge_components(mixture: Mixture, components: int) -> Mixture:
    """At most `components` components, by greedily merging the pair that costs least, moments kept.

    The cost of a merger bounds the KL it adds (Runnalls 2007). A fast first guess for EM: it tends to be right
    where components are narrow and far apart, the case in which k-means++ seedings are often stuck.
    """
    present = mixture.weights > 0
    w, means, variances = mixture.weights[present], mixture.means[present], mixture.sds[present] ** 2
    while w.size > components:
        both = w[:, None] + w
        share = (w[:, None] / both)[..., None]  # of the first of the pair, [K, K, 1]
        mean = share * means[:, None] + (1 - share) * means
        spread = share * (1 - share) * (means[:, None] - means) ** 2
        variance = share * variances[:, None] + (1 - share) * variances + spread
        own = w * np.log(variances).sum(-1)
        cost = both * np.log(variance).sum(-1) - own[:, None] - own
        np.fill_diagonal(cost, np.inf)
        i, j = sorted(divmod(int(cost.argmin()), w.size))
        w[i], means[i], variances[i] = both[i, j], mean[i, j], variance[i, j]
        w, means, variances = (np.delete(a, j, axis=0) for a in (w, means, variances))
    return Mixture(w / w.sum(), means, np.sqrt(variances))


def project(
    log_density: FloatArray, grid: Grid, components: int, floor: float = FLOOR, guess: Mixture | None = None
) -> Mixture:
    """The mixture of `components` diagonal Gaussians nearest to a density on a grid, by deterministic EM.

    Nearest in KL(density || mixture): what fitting to endless samples of it tends to. EM begins at STARTS k-means++
    seedings in which a golden-ratio sequence takes the place of random numbers, screens them on a grid of half the
    resolution, and goes on from the best FINALISTS and from the `guess`, if there is one of this size: the best local
    optimum of these, like any EM. log_density [n, m] need not be normalised. Raises InputError for components < 1.
    """
    if components < 1:
        raise InputError("components must be >= 1", components, "Give the student's size.")
    mass = cell_masses(log_density)
    coarse_mass, coarse = _halve(mass, grid)
    start = _seedings(coarse_mass, coarse, components, STARTS)
    screened, likelihood = _em(coarse_mass, coarse, start, SCREENING, 0.0, floor)
    finalists = np.argsort(-likelihood, kind="stable")[:FINALISTS]
    chosen = Mixture(*(a[finalists] for a in screened))
    if guess is not None and guess.weights.size == components:
        chosen = Mixture(*(np.concatenate([a, g[None]]) for a, g in zip(chosen, guess, strict=True)))
    fitted, likelihood = _em(mass, grid, chosen, ITERATIONS, TOLERANCE, floor)
    best = int(likelihood.argmax())
    return Mixture(*(a[best] for a in fitted))


def refine(log_density: FloatArray, grid: Grid, start: Mixture, floor: float = FLOOR) -> Mixture:
    """EM on a density [n, m] from a given mixture of the wanted size, until an iteration gains less than 1e-4 nats."""
    fitted, _ = _em(cell_masses(log_density), grid, Mixture(*(a[None] for a in start)), ITERATIONS, TOLERANCE, floor)
    return Mixture(*(a[0] for a in fitted))


def _halve(mass: FloatArray, grid: Grid) -> tuple[FloatArray, Grid]:
    """Sums of 2 x 2 cells (an odd last row or column joins as a half-empty block)."""
    padded = np.pad(mass, [(0, n % 2) for n in grid.shape])
    n, m = (s // 2 for s in padded.shape)
    hx, hy = grid.x[1] - grid.x[0], grid.y[1] - grid.y[0]
    halved = padded.reshape(n, 2, m, 2).sum((1, 3))
    x, y = grid.x[0] + hx * (2 * np.arange(n) + 0.5), grid.y[0] + hy * (2 * np.arange(m) + 0.5)
    return halved, Grid(x, y, 4 * grid.cell)


def _seedings(mass: FloatArray, grid: Grid, components: int, starts: int) -> Mixture:
    """k-means++ (Arthur and Vassilvitskii 2007) on the heavy cells, `starts` times: a Mixture [S, K, ...]."""
    flat = mass.ravel()
    heavy = np.flatnonzero(flat > 1e-5 * flat.sum())
    points, w = grid.points.reshape(-1, 2)[heavy], flat[heavy]  # [P, 2], [P]
    number = (np.arange(starts * components).reshape(starts, components) + 0.5) * GOLDEN % 1.0
    nearest = np.full((starts, w.size), np.inf)
    owner = np.zeros((starts, w.size), dtype=np.intp)
    for k in range(components):
        score = np.cumsum(w * (nearest if k else np.ones_like(nearest)), axis=1)  # [S, P]
        chosen = (score < number[:, k, None] * score[:, -1:]).sum(1)
        distance = ((points - points[np.minimum(chosen, w.size - 1), None]) ** 2).sum(-1)
        owner[distance < nearest] = k
        np.minimum(nearest, distance, out=nearest)
    share = w * (owner[:, None] == np.arange(components)[:, None])  # [S, K, P]
    total = share.sum(-1, keepdims=True) + 1e-12
    means = share @ points / total
    variances = np.maximum(share @ points**2 / total - means**2, FLOOR)
    return Mixture(total[..., 0] / total.sum(1), means, np.sqrt(variances))


def _em(
    mass: FloatArray, grid: Grid, start: Mixture, iterations: int, tolerance: float, floor: float
) -> tuple[Mixture, FloatArray]:
    """EM of mixtures [S, K, ...] on cell masses [n, m]; returns them with their mean log-likelihoods [S].

    Responsibilities are never formed: a component is px * py, so the sums over cells that the M step needs are matrix
    products of the ratio mass / total. A cell that no component reaches (density below 1e-290) counts nothing.
    """
    weights, means, sds = start
    before = np.full(weights.shape[0], -np.inf)
    for _ in range(iterations):
        px = axis_densities(grid.x, means[..., 0], sds[..., 0]) * weights[..., None]  # [S, K, n]
        py = axis_densities(grid.y, means[..., 1], sds[..., 1])  # [S, K, m]
        total = np.maximum(np.swapaxes(px, -1, -2) @ py, 1e-290)  # [S, n, m]
        likelihood = (mass * np.log(total)).sum((-2, -1))
        if (likelihood - before < tolerance).all():
            break
        before = likelihood
        ratio = mass / total
        along_x = px * np.swapaxes(ratio @ np.swapaxes(py, -1, -2), -1, -2)
        share, means, variances = moments(along_x, py * (px @ ratio), grid)
        weights, sds = share / share.sum(-1, keepdims=True), np.sqrt(np.maximum(variances, floor))
    return Mixture(weights, means, sds), likelihood


def moments(along_x: FloatArray, along_y: FloatArray, grid: Grid) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mass [..., K], means and variances [..., K, 2] of components from their marginals [..., K, n] and [..., K, m]."""
    x, y = (a @ np.stack([np.ones_like(t), t, t * t], axis=1) for a, t in ((along_x, grid.x), (along_y, grid.y)))
    both = np.stack([x, y], axis=-1)  # [..., K, moment, axis]
    total = np.maximum(both[..., 0, :], 1e-300)
    means = both[..., 1, :] / total
    return x[..., 0], means, np.maximum(both[..., 2, :] / total - means**2, 1e-12)
