"""Where a recipe should end, with no training: tilt, sharpen, project.

On behaviours (categorical: no capacity to lose), and on mixtures of diagonal Gaussians in 2-D. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from alignfirst.errors import InputError
from alignfirst.theory.projection import FLOOR, Mixture, merge_components, moments, project, refine
from alignfirst.theory.tilt import (
    FloatArray,
    Grid,
    axis_densities,
    axis_log_densities,
    categorical_tilt,
    cell_masses,
    disc_weights,
    mixture_log_density,
    require_positive,
    square_grid,
)

Reward = Callable[[FloatArray], FloatArray]  # points [..., 2] -> reward [...]

T = TypeVar("T")


class Predicted(NamedTuple):
    """Mean reward and target mass after one stage."""

    reward: float
    target_mass: float


def sharpen(weights: ArrayLike, selectivity: float) -> FloatArray:
    """w_k^s normalised, [..., K]: what a student sees of a teacher sampled with selectivity s (s = 1: everything)."""
    require_positive("selectivity", selectivity)
    w = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(w).all() and (w >= 0).all() and (w.sum(-1) > 0).all()):
        raise InputError("weights must be finite, >= 0 and not all 0", weights, "Give component weights.")
    relative = w / w.max(-1, keepdims=True)  # so that no power underflows as a whole
    return np.asarray(relative**selectivity / (relative**selectivity).sum(-1, keepdims=True))


def tilt_mixture(mixture: Mixture, reward: FloatArray, beta: float, grid: Grid) -> Mixture:
    """pi* of a mixture reference, kept a mixture: weights w_k E_k[exp(R / beta)], tilted components moment-matched.

    reward [n, m] on the grid. Exact for the weights and for each component's mean and variances, by quadrature.
    """
    require_positive("beta", beta)
    px = axis_densities(grid.x, mixture.means[:, 0], mixture.sds[:, 0])  # [K, n]
    py = axis_densities(grid.y, mixture.means[:, 1], mixture.sds[:, 1])  # [K, m]
    top = float(reward.max()) / beta
    gain = np.exp(reward / beta - top)  # [n, m]
    z, means, variances = moments(px * (gain @ py.T).T, py * (px @ gain), grid)
    with np.errstate(divide="ignore"):
        log_z = np.log(z * grid.cell)
        for k in np.flatnonzero(z < 1e-250):  # so far from the reward that the product underflows
            log_z[k], means[k], variances[k] = _tilt_component(mixture, int(k), reward / beta - top, grid)
        log_w = np.log(mixture.weights) + log_z
    return Mixture(np.exp(log_w - logsumexp(log_w)), means, np.sqrt(variances))


def _tilt_component(mixture: Mixture, k: int, log_gain: FloatArray, grid: Grid) -> tuple[float, FloatArray, FloatArray]:
    """One component in log space: log E_k[gain], mean [2], variances [2]."""
    log_x = axis_log_densities(grid.x, mixture.means[k : k + 1, 0], mixture.sds[k : k + 1, 0])[0]
    log_y = axis_log_densities(grid.y, mixture.means[k : k + 1, 1], mixture.sds[k : k + 1, 1])[0]
    log_tilted = log_x[:, None] + log_y + log_gain
    mass = cell_masses(log_tilted)
    _, means, variances = moments(mass.sum(1)[None], mass.sum(0)[None], grid)
    return float(logsumexp(log_tilted) + np.log(grid.cell)), means[0], variances[0]


# Recipes ------------------------------------------------------------------------------------------------------------


def predict_stages(
    stages: Sequence[object],
    weights: FloatArray,
    means: FloatArray,
    sds: FloatArray,
    reward_fn: Reward,
    centres: ArrayLike,
    radius: float,
    beta: float | None,
    selectivity: float,
    components: int,
    rehearsal: float = 0.05,
    p_target: tuple[FloatArray, FloatArray, FloatArray] | None = None,
    floor: float = FLOOR,
    grid: Grid | None = None,
) -> list[Predicted]:
    """Predicted end state of every stage of a recipe that starts from the mixture weights [K], means, sds [K, 2] (sft).

    Index 0 is sft itself. `stages` are mappings or objects with `kind`, and optionally `reference` and `rehearsed`; a
    stage's `updates` do not matter: the optimum is where any number of them tends. T is the discs of `radius` around
    `centres`.

    align: pi* of its reference, held to the size of the model it starts from: EM on pi*'s density, beginning at the
    tilted, moment-matched components where that size suffices (a broad component can tilt into a shape that is not
    Gaussian, which others then help to hold), and by `project` where it does not. So a student anchored to sft is
    predicted to become pi* of sft as far as its own size holds it, wherever it started: that it may never get there
    (exploration) is for training to show.
    distil: weights sharpened, `rehearsal` of p_target (weights, means, sds) mixed in where rehearsed, then `project`; a
    student at least as large as what it is taught keeps all of it.

    The default grid, 121 x 121 on [-3, 3]^2, moves reward and mass by 2e-4 against a grid of half the step (sds down to
    0.03); in one case in ten EM then settles on another of two nearly equal optima, which moved them by up to 0.02.
    Raises InputError for a stage it does not know, beta <= 0, or beta or p_target missing where a stage needs it.
    """
    grid = grid or square_grid(3.0, 0.05)
    reward, target = reward_fn(grid.points), disc_weights(grid, centres, radius)
    sft = state = Mixture(*(np.asarray(a, dtype=np.float64) for a in (weights, means, sds)))
    predicted = [_measure(state, reward, target, grid)]
    for stage in stages:
        kind, reference, rehearsed = _parse(stage)
        if kind == "align":
            state = _align(sft if reference == "sft" else state, state.weights.size, reward, _given(beta), floor, grid)
        else:
            taught = state._replace(weights=sharpen(state.weights, selectivity))
            if rehearsed:
                taught = _blend(taught, p_target, rehearsal)
            state = _fit(taught, components, floor, grid)
        predicted.append(_measure(state, reward, target, grid))
    return predicted


def predict_categorical(
    stages: Sequence[object],
    masses: ArrayLike,
    rewards: ArrayLike,
    beta: float | None,
    selectivity: float,
    rehearsal: float = 0.05,
    p_target: ArrayLike | None = None,
) -> FloatArray:
    """The same on behaviours, where no capacity is lost: masses [..., K] -> [stages + 1, ..., K], index 0 being sft.

    rewards [..., K]; p_target [..., K] is needed by rehearsed stages alone. Errors as in predict_stages.
    """
    sft = sharpen(masses, 1.0)  # normalised
    states = [sft]
    for stage in stages:
        kind, reference, rehearsed = _parse(stage)
        if kind == "align":
            states.append(categorical_tilt(sft if reference == "sft" else states[-1], rewards, _given(beta)))
        else:
            taught = sharpen(states[-1], selectivity)
            if rehearsed:
                shown = np.asarray(_needed(p_target), dtype=np.float64)
                taught = (1.0 - rehearsal) * taught + rehearsal * sharpen(shown, 1.0)
            states.append(taught)
    return np.stack(states)


def _align(reference: Mixture, size: int, reward: FloatArray, beta: float, floor: float, grid: Grid) -> Mixture:
    log_optimum = mixture_log_density(grid, *reference) + reward / beta
    tilted = tilt_mixture(reference, reward, beta, grid)
    if reference.weights.size > size:
        return project(log_optimum, grid, size, floor, merge_components(tilted, size))
    return refine(log_optimum, grid, tilted, floor)


def _fit(taught: Mixture, components: int, floor: float, grid: Grid) -> Mixture:
    if taught.weights.size <= components:
        return taught
    return project(mixture_log_density(grid, *taught), grid, components, floor, merge_components(taught, components))


def _blend(taught: Mixture, p_target: tuple[FloatArray, FloatArray, FloatArray] | None, share: float) -> Mixture:
    weights, means, sds = _needed(p_target)
    both = np.concatenate([(1 - share) * taught.weights, share * np.asarray(weights) / np.sum(weights)])
    return Mixture(both, np.concatenate([taught.means, means]), np.concatenate([taught.sds, sds]))


def _measure(mixture: Mixture, reward: FloatArray, target: FloatArray, grid: Grid) -> Predicted:
    px = axis_densities(grid.x, mixture.means[:, 0], mixture.sds[:, 0]) * mixture.weights[:, None]
    density = px.T @ axis_densities(grid.y, mixture.means[:, 1], mixture.sds[:, 1])
    total = float(density.sum())
    return Predicted(float(np.vdot(density, reward)) / total, float(np.vdot(density, target)) / total)


def _parse(stage: object) -> tuple[str, str, bool]:
    """kind, reference, rehearsed of a mapping or an object."""

    def field(name: str, default: Any) -> Any:
        return stage.get(name, default) if isinstance(stage, Mapping) else getattr(stage, name, default)

    kind, reference = field("kind", None), field("reference", "start")
    if kind not in ("align", "distil"):
        raise InputError("a stage's kind must be align or distil", kind, "See the recipes of the study.")
    if reference not in ("start", "sft"):
        raise InputError("a stage's reference must be start or sft", reference, "Leave it out for start.")
    return kind, reference, bool(field("rehearsed", False))


def _given(beta: float | None) -> float:
    if beta is None:
        raise InputError("a recipe that aligns needs a beta", beta, "Give the strength of the KL penalty.")
    return float(require_positive("beta", beta))


def _needed(p_target: T | None) -> T:
    if p_target is None:
        raise InputError("a rehearsed stage needs p_target", p_target, "Give the target's own distribution.")
    return p_target
