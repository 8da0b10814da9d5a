"""The KL-regularised optimum pi*(x) = pi_ref(x) exp(R(x) / beta) / Z: on behaviours, and by quadrature in 2-D.

Arrays in, arrays out. All logarithms are natural. Quadrature is the rectangle rule on an equally spaced grid. For a
Gaussian of standard deviation s its relative error is at most 4 exp(-2 (pi s / step)^2) (Trefethen and Weideman 2014):
1e-8 where s = step, 1e-3 where s = 0.65 step, 3 % where s = step / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from alignfirst.errors import InputError

FloatArray = NDArray[np.float64]

LOG_TINY = -650.0  # exp() of less may be denormal: there the slow, exact path takes over
MAX_AXIS = 8001  # a typing error in `step` must not fill the memory
MAX_SHARPNESS = 1e6  # beta_c is sought down to (reward range) / 1e6


def require_positive(name: str, value: ArrayLike) -> FloatArray:
    """The value as an array of floats; InputError unless all of it is finite and > 0."""
    array = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise InputError(f"{name} must be finite and > 0", value, f"Give a positive {name}.")
    return array


def require_masses(name: str, value: ArrayLike) -> FloatArray:
    """The value as an array of floats; InputError unless all of it lies in [0, 1] (rounding of 1e-6 is let through)."""
    array = np.asarray(value, dtype=np.float64)
    if not ((array >= -1e-6) & (array <= 1 + 1e-6)).all():
        raise InputError(f"{name} must be a probability in [0, 1]", value, "Normalise it first.")
    return np.clip(array, 0.0, 1.0)


# Behaviours ---------------------------------------------------------------------------------------------------------


def categorical_tilt(masses: ArrayLike, rewards: ArrayLike, beta: ArrayLike) -> FloatArray:
    """pi*_i proportional to e_i exp(r_i / beta).

    masses [..., K] >= 0, normalised or not; rewards [..., K]; beta broadcasts against the leading axes. Returns
    [..., K] summing to one. Worked in log space, so that no beta overflows. Raises InputError for bad input.
    """
    e, r = np.asarray(masses, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    b = require_positive("beta", beta)
    if not (np.isfinite(e).all() and (e >= 0).all() and (e.sum(-1) > 0).all()):
        raise InputError("masses must be finite, >= 0 and not all 0", masses, "Give each behaviour's probability.")
    if not np.isfinite(r).all():
        raise InputError("rewards must be finite", rewards, "Drop the behaviour, or give it mass 0.")
    with np.errstate(divide="ignore"):  # a mass of 0 stays 0
        tilted: FloatArray = softmax(np.log(e) + r / b[..., None], axis=-1)
    return tilted


def depth(mass: ArrayLike) -> FloatArray:
    """Depth of the trap in nats, log((1 - e) / e): inf for a mass of 0, negative above one half. Any shape."""
    e = require_masses("mass", mass)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log1p(-e) - np.log(e))


def recovery_threshold(mass: ArrayLike, gap: ArrayLike) -> FloatArray:
    """beta_c = D / log((1 - e) / e), the beta of half mass for one target of mass e that is worth D more than the rest.

    mass in [0, 1] and gap broadcast. inf where e >= 1/2 (no beta loses it); 0 where e = 0 or D <= 0 (no beta finds it).
    """
    nats, d = np.broadcast_arrays(depth(mass), np.asarray(gap, dtype=np.float64))
    if np.isnan(d).any():
        raise InputError("gap must be a number", gap, "Give the target's reward less that of the rest.")
    threshold = np.divide(np.maximum(d, 0.0), nats, out=np.full(nats.shape, np.inf), where=nats > 0)
    return np.asarray(threshold)


# The grid -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectangular lattice: x [n], y [m], equally spaced, and the area of one cell. Fields on it are [..., n, m]."""

    x: FloatArray
    y: FloatArray
    cell: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.size, self.y.size

    @cached_property
    def points(self) -> FloatArray:
        """Every lattice point, [n, m, 2]."""
        return np.stack(np.meshgrid(self.x, self.y, indexing="ij"), axis=-1)


def square_grid(half_width: float = 3.0, step: float = 0.025) -> Grid:
    """Lattice on [-half_width, half_width]^2; the step is rounded so that it divides the width. Default 241 x 241."""
    require_positive("half_width", half_width)
    require_positive("step", step)
    intervals = max(2.0 * half_width / step, 1.0)
    if intervals >= MAX_AXIS:
        raise InputError(f"half_width / step must stay below {MAX_AXIS // 2}", (half_width, step), "Widen the step.")
    axis = np.linspace(-half_width, half_width, round(intervals) + 1)
    return Grid(axis, axis, float((axis[1] - axis[0]) ** 2))


def disc_weights(grid: Grid, centres: ArrayLike, radius: float, subcells: int = 16) -> FloatArray:
    """Share of each cell's area inside the union of discs, [n, m] in [0, 1], for masses by quadrature.

    centres [M, 2]. Cells on a rim are sampled at subcells^2 points; the area is right to 5e-4 of itself from radius =
    10 steps on. A smooth density loses step^2 / 24 of the flux of its gradient through the rim: 1e-4 of mass for a mode
    of p_star (sd 0.158, radius 0.474) at step 0.025, 4e-4 at 0.05; next to nothing for narrower modes.
    """
    require_positive("radius", radius)
    c = np.asarray(centres, dtype=np.float64)
    if c.ndim != 2 or c.shape[1] != 2 or not np.isfinite(c).all():
        raise InputError("centres must be finite points [M, 2]", centres, "Give a list of [x, y].")
    hx, hy = float(grid.x[1] - grid.x[0]), float(grid.y[1] - grid.y[0])
    distance = np.full(grid.shape, np.inf)
    for x, y in c:  # M is a handful
        np.minimum(distance, np.hypot(grid.x[:, None] - x, grid.y - y), out=distance)
    reach = 0.5 * np.hypot(hx, hy)
    share = (distance <= radius).astype(np.float64)
    i, j = np.nonzero(np.abs(distance - radius) <= reach)
    offset = (np.arange(subcells) + 0.5) / subcells - 0.5
    x = (grid.x[i, None] + hx * offset)[:, :, None, None]
    y = (grid.y[j, None] + hy * offset)[:, None, :, None]
    inside = ((x - c[:, 0]) ** 2 + (y - c[:, 1]) ** 2 <= radius**2).any(-1)  # [rim cells, subcells, subcells]
    share[i, j] = inside.mean((1, 2))
    return share


def axis_log_densities(axis: FloatArray, means: FloatArray, sds: FloatArray) -> FloatArray:
    """log N(axis; mean, sd^2): axis [n], means and sds [..., K] -> [..., K, n]."""
    z = (axis - means[..., None]) / sds[..., None]
    return np.asarray(-0.5 * z * z - (np.log(sds) + 0.5 * np.log(2.0 * np.pi))[..., None])


def axis_densities(axis: FloatArray, means: FloatArray, sds: FloatArray) -> FloatArray:
    """N(axis; mean, sd^2), exactly 0 where it would be denormal (denormals are slow): shapes of axis_log_densities."""
    return _exp(axis_log_densities(axis, means, sds))


def _exp(log_values: FloatArray) -> FloatArray:
    return np.exp(np.where(log_values < LOG_TINY, -np.inf, log_values))


def mixture_log_density(grid: Grid, weights: FloatArray, means: FloatArray, sds: FloatArray) -> FloatArray:
    """log sum_k w_k N(x; mean_k, diag sd_k^2) on the grid: weights [..., K], means and sds [..., K, 2] -> [..., n, m].

    A diagonal Gaussian is a product of its axes, so the sum is one matrix product. Where that product underflows, the
    cells are done again by logsumexp: finite and exact everywhere, no floor. That some weight and all sds are > 0 is
    taken as given: this runs thousands of times.
    """
    with np.errstate(divide="ignore"):  # a component of weight 0 is absent
        log_w = np.log(weights)[..., None]
    a = axis_log_densities(grid.x, means[..., 0], sds[..., 0]) + log_w  # [..., K, n]
    b = axis_log_densities(grid.y, means[..., 1], sds[..., 1])  # [..., K, m]
    density = np.swapaxes(_exp(a), -1, -2) @ _exp(b)  # [..., n, m]
    lost = density < np.exp(LOG_TINY + 30.0)  # a dropped factor may reach this far
    with np.errstate(divide="ignore"):
        log_density: FloatArray = np.log(density, out=density)
    if lost.any():
        log_density[lost] = _logsumexp_at(lost, a, b)
    return log_density


def _logsumexp_at(cells: NDArray[np.bool_], a: FloatArray, b: FloatArray) -> FloatArray:
    """log sum_k exp(a[..., k, i] + b[..., k, j]) at the marked cells [..., n, m]; a [..., K, n], b [..., K, m]."""
    (n, m), count = cells.shape[-2:], a.shape[-2]
    run, i, j = np.nonzero(cells.reshape(-1, n, m))
    rows = np.moveaxis(a, -2, 0).reshape(count, -1)  # [K, runs * n]
    columns = np.moveaxis(b, -2, 0).reshape(count, -1)
    terms = np.take(rows, run * n + i, axis=1)  # [K, cells]; then in place, three times as fast as plain expressions
    terms += np.take(columns, run * m + j, axis=1)
    top = terms.max(0)
    terms -= top
    np.exp(terms, out=terms)
    return np.asarray(top + np.log(terms.sum(0)))


# The optimum on a grid ----------------------------------------------------------------------------------------------


class Optimum(NamedTuple):
    """pi* on a grid. log_density [n, m] integrates to one over the grid; kl is KL(pi* || pi_ref) and log_z log E_ref
    exp(R / beta), in nats."""

    log_density: FloatArray
    reward: float
    reward_sd: float
    target_mass: float
    kl: float
    log_z: float


def cell_masses(log_density: FloatArray) -> FloatArray:
    """Probability of every cell, [..., n, m] summing to one: a density restricted to its grid."""
    mass = np.exp(log_density - log_density.max((-2, -1), keepdims=True))
    mass /= mass.sum((-2, -1), keepdims=True)
    return np.asarray(mass)


def tilt_on_grid(
    logp_ref: FloatArray, reward: FloatArray, beta: float, grid: Grid, target_weight: FloatArray
) -> Optimum:
    """pi* = pi_ref exp(R / beta) / Z by quadrature; the reference is taken as restricted to the grid.

    logp_ref, reward and target_weight (as disc_weights gives it) are [n, m]; logp_ref may be -inf. Raises InputError
    for beta <= 0, shapes that are not the grid's, NaN, and a reference without mass.
    """
    require_positive("beta", beta)
    _require_fields(grid, logp_ref, reward, target_weight)
    log_tilted = logp_ref + reward / beta
    log_total = _log_total(log_tilted)
    log_z = log_total - _log_total(logp_ref)
    log_tilted -= log_total
    if not np.isfinite(log_z):
        raise InputError("the reference must have mass on the grid, and no NaN", log_z, "Check log-density and reward.")
    mass = np.exp(log_tilted)
    mean = float(np.vdot(mass, reward))
    variance = float(np.vdot(mass, (reward - mean) ** 2))
    target_mass = float(np.vdot(mass, target_weight))
    kl = max(mean / beta - log_z, 0.0)  # rounding only: a KL is never negative
    return Optimum(log_tilted - np.log(grid.cell), mean, variance**0.5, target_mass, kl, log_z)


def beta_c_on_grid(logp_ref: FloatArray, reward: FloatArray, grid: Grid, target_weight: FloatArray) -> float:
    """Recovery threshold of a reference: the beta at which pi* has half of its mass on T, to a relative 1e-8.

    Arguments and errors as in tilt_on_grid. inf where the reference itself has at least half; 0 where no beta reaches
    half (sought down to a millionth of the reward's range). Where T does not hold the highest rewards, a smaller beta
    can lose the target again: the largest crossing is meant, as far as steps of 1.3 in beta tell crossings apart.
    """
    _require_fields(grid, logp_ref, reward, target_weight)
    with np.errstate(divide="ignore"):
        inside, r_inside = _part(logp_ref + np.log(target_weight), reward)
        outside, r_outside = _part(logp_ref + np.log1p(-target_weight), reward)
    if inside.size == 0 or outside.size == 0:
        return 0.0 if inside.size == 0 else float("inf")

    def log_odds(sharpness: float) -> float:  # of T, at beta = 1 / sharpness
        return _log_total(inside + sharpness * r_inside) - _log_total(outside + sharpness * r_outside)

    start, widest = log_odds(0.0), float(r_inside.max() - r_outside.min())
    if not np.isfinite(start + widest):
        raise InputError("log-density and reward must not be NaN", start + widest, "Check both.")
    if start >= 0.0:
        return float("inf")
    if widest <= 0.0:
        return 0.0
    low, high = 0.0, -start / widest  # a gap of rewards cannot be wider, so no smaller sharpness reaches half
    limit = max(MAX_SHARPNESS / widest, high)
    while log_odds(high) < 0.0:
        low, high = high, 1.3 * high
        if high > limit:
            return 0.0
    return 1.0 / float(brentq(log_odds, low, high, xtol=1e-12 * high, rtol=1e-9))


def _part(log_mass: FloatArray, reward: FloatArray) -> tuple[FloatArray, FloatArray]:
    present = log_mass > -np.inf
    return log_mass[present], reward[present]


def _log_total(log_mass: FloatArray) -> float:
    """logsumexp over everything; scipy's spends several times as long on generality."""
    top = float(log_mass.max())
    return top + float(np.log(np.exp(log_mass - top).sum()))


def _require_fields(grid: Grid, *fields: FloatArray) -> None:
    for f in fields:
        if f.shape != grid.shape:
            raise InputError(f"a field must have the grid's shape {grid.shape}", f.shape, "Evaluate it on grid.points.")
