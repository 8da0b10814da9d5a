"""The mixture kernel: sample, log-density, score-weighted gradient, Adam; compiled once, for every algorithm and EM.

Runs lead. `theta[R, 5, K]` holds logits, means (x, y) and log standard deviations (x, y) of diagonal mixtures, points
are `x[R, 2, N]`. All float32: samples carry noise that is orders of magnitude larger than its rounding, and twice the
lanes fit a vector. Inner loops run over samples, so that they vectorise; no random number is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from alignfirst.worlds.mog.compiled_cache import compile_cached
from alignfirst.worlds.mog.layout import F32, LOG_SD, LOGITS, MEAN

TILE = 256  # samples at a time: one tile of 16 components stays in the first-level cache

TINY = np.float32(1e-30)  # a total below it may have lost components to underflow

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, **options: Any) -> Function:
    """Compile on first call, cached on disk where that can be.

    Reassociation lets sums vectorise. NaN and infinity keep their meaning: a diverged run must be seen.
    """
    math = {"reassoc", "contract", "nsz", "arcp"}
    return cast(Function, compile_cached(function, fastmath=math, error_model="numpy", nogil=True, **options))


def inlined(function: Function) -> Function:
    """Compiled into its callers, so that their loops vectorise."""
    return compiled(function, inline="always")


def _float_of_bits(context: Any, bits: Any) -> Any:
    """Reinterpret int32 as float32."""
    return types.float32(types.int32), lambda c, b, s, args: b.bitcast(args[0], ir.FloatType())


def _bits_of_float(context: Any, value: Any) -> Any:
    """Reinterpret float32 as int32."""
    return types.int32(types.float32), lambda c, b, s, args: b.bitcast(args[0], ir.IntType(32))


_float_of: Any = intrinsic(_float_of_bits)
_bits_of: Any = intrinsic(_bits_of_float)


@inlined
def exp32(x: Any) -> Any:
    """e^x for x <= 80, to 2e-7 relative plus 6e-8 |x|; 2e-38 below -87, NaN stays NaN.

    Cephes' exp2f polynomial, for libm does not vectorise.
    """
    t = (np.float32(-87.0) if x < np.float32(-87.0) else x) * np.float32(1.4426950408889634)
    whole = _bits_of(t + np.float32(12582912.0)) - np.int32(0x4B400000)  # round to nearest in the mantissa
    f = t - np.float32(whole)
    p = np.float32(1.535336188319500e-4)
    p = p * f + np.float32(1.339887440266574e-3)
    p = p * f + np.float32(9.618437357674640e-3)
    p = p * f + np.float32(5.550332471162809e-2)
    p = p * f + np.float32(2.402264791363012e-1)
    p = p * f + np.float32(6.931472028550421e-1)
    return (p * f + np.float32(1.0)) * _float_of((whole + np.int32(127)) << np.int32(23))


@inlined
def log32(x: Any) -> Any:
    """log x for normal x > 0, to 3e-7 absolute near 1, relative elsewhere; NaN stays NaN. Cephes' logf polynomial."""
    bits = _bits_of(x)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)  # m in [sqrt(1/2), sqrt(2))
    f = _float_of(bits - (exponent << np.int32(23))) - np.float32(1.0)
    p = np.float32(7.0376836292e-2)
    p = p * f - np.float32(1.1514610310e-1)
    p = p * f + np.float32(1.1676998740e-1)
    p = p * f - np.float32(1.2420140846e-1)
    p = p * f + np.float32(1.4249322787e-1)
    p = p * f - np.float32(1.6668057665e-1)
    p = p * f + np.float32(2.0000714765e-1)
    p = p * f - np.float32(2.4999993993e-1)
    p = p * f + np.float32(3.3333331174e-1)
    f2 = f * f
    value = (p * f - np.float32(0.5)) * f2 + f + np.float32(exponent) * np.float32(0.6931471805599453)
    return x if x != x else value


@compiled
def log_weights(theta: F32, out: F32) -> None:
    """Normalised log-weights of one mixture: theta[5, K] -> out[K]."""
    top = theta[LOGITS].max()
    total = np.float32(0.0)
    for k in range(out.size):
        total += np.exp(theta[LOGITS, k] - top)
    shift = top + np.log(total)
    for k in range(out.size):
        out[k] = theta[LOGITS, k] - shift


@compiled
def _responsibilities(theta: F32, logw: F32, x: F32, y: F32, e: F32, total: F32, logp: F32) -> None:
    """One tile: e[K, n] = component densities up to a common factor, total[n] = their sum, logp[n] = log-density.

    The usual subtraction of the maximum costs a third of the time and is needed only where every component is so far
    that its density underflows; such tiles, rare, are done again with it.
    """
    n = x.size
    for i in range(n):
        total[i] = np.float32(0.0)
    for k in range(logw.size):
        mx, my, ix, iy, constant = _component(theta, logw, k)
        ek = e[k]
        for i in range(n):
            dx = (x[i] - mx) * ix
            dy = (y[i] - my) * iy
            v = exp32(constant - np.float32(0.5) * (dx * dx + dy * dy))
            ek[i] = v
            total[i] += v
    underflow = False
    for i in range(n):
        underflow |= total[i] < TINY
        logp[i] = log32(total[i])
    if underflow:
        _far_responsibilities(theta, logw, x, y, e, total, logp)


@compiled
def _far_responsibilities(theta: F32, logw: F32, x: F32, y: F32, e: F32, total: F32, logp: F32) -> None:
    """The same where densities underflow: densities relative to the largest component's."""
    n = x.size
    top = np.full(n, -np.inf, np.float32)
    for k in range(logw.size):
        mx, my, ix, iy, constant = _component(theta, logw, k)
        for i in range(n):
            dx = (x[i] - mx) * ix
            dy = (y[i] - my) * iy
            q = constant - np.float32(0.5) * (dx * dx + dy * dy)
            e[k, i] = q
            top[i] = q if (q > top[i]) | (q != q) else top[i]
    for i in range(n):
        total[i] = np.float32(0.0)
    for k in range(logw.size):
        for i in range(n):
            e[k, i] = exp32(e[k, i] - top[i])
            total[i] += e[k, i]
    for i in range(n):
        logp[i] = top[i] + log32(total[i])


@inlined
def _component(theta: Any, logw: Any, k: Any) -> Any:
    """Mean, inverse standard deviations and log of weight / normaliser of one component."""
    lx, ly = theta[LOG_SD, k], theta[LOG_SD + 1, k]
    constant = logw[k] - lx - ly - np.float32(1.8378770664093453)  # log 2 pi
    return theta[MEAN, k], theta[MEAN + 1, k], np.exp(-lx), np.exp(-ly), constant


@compiled
def _moments(theta: F32, x: F32, y: F32, c: F32, e: F32, out: NDArray[np.float64]) -> None:
    """Add to out[5, K] the sums over one tile of c r {1, dx, dy, dx^2, dy^2}, d in standard deviations."""
    for k in range(out.shape[1]):
        mx, my = theta[MEAN, k], theta[MEAN + 1, k]
        ix, iy = np.exp(-theta[LOG_SD, k]), np.exp(-theta[LOG_SD + 1, k])
        s0 = s1 = s2 = s3 = s4 = np.float32(0.0)
        ek = e[k]
        for i in range(x.size):
            g = c[i] * ek[i]
            dx = (x[i] - mx) * ix
            dy = (y[i] - my) * iy
            gx = g * dx
            gy = g * dy
            s0 += g
            s1 += gx
            s2 += gy
            s3 += gx * dx
            s4 += gy * dy
        out[0, k] += s0
        out[1, k] += s1
        out[2, k] += s2
        out[3, k] += s3
        out[4, k] += s4


@compiled
def sample(theta: F32, u: F32, z: F32, row: NDArray[np.int64], x: F32) -> None:
    """x[R, 2, N] ~ mixtures theta[R, 5, K], from uniforms u[S, N] and normals z[S, 2, N]; run r uses noise row[r]."""
    runs, _, components = theta.shape
    logw = np.empty(components, np.float32)
    edge = np.empty(components, np.float32)
    sd = np.empty((2, components), np.float32)
    chosen = np.empty(u.shape[1], np.int32)
    for r in range(runs):
        log_weights(theta[r], logw)
        cumulative = 0.0
        for k in range(components):
            cumulative += np.exp(np.float64(logw[k]))
            edge[k] = cumulative
            sd[0, k], sd[1, k] = np.exp(theta[r, LOG_SD, k]), np.exp(theta[r, LOG_SD + 1, k])
        ur, zr, xr = u[row[r]], z[row[r]], x[r]
        chosen[:] = 0
        for j in range(components - 1):  # counting edges vectorises, searching them does not
            for i in range(ur.size):
                chosen[i] += ur[i] >= edge[j]
        for i in range(ur.size):
            k = chosen[i]
            xr[0, i] = theta[r, MEAN, k] + sd[0, k] * zr[0, i]
            xr[1, i] = theta[r, MEAN + 1, k] + sd[1, k] * zr[1, i]


@compiled
def log_density(theta: F32, x: F32, logp: F32) -> None:
    """logp[R, N] of x[R, 2, N] under theta[R, 5, K]."""
    runs, _, components = theta.shape
    logw = np.empty(components, np.float32)
    e = np.empty((components, TILE), np.float32)
    total = np.empty(TILE, np.float32)
    for r in range(runs):
        log_weights(theta[r], logw)
        for a in range(0, x.shape[2], TILE):
            b = min(a + TILE, x.shape[2])
            _responsibilities(theta[r], logw, x[r, 0, a:b], x[r, 1, a:b], e, total, logp[r, a:b])


@compiled
def log_density_kept(theta: F32, x: F32, e: F32, total: F32, logp: F32) -> None:
    """As `log_density`, keeping the responsibilities e[R, K, N] / total[R, N] for `ascend`."""
    logw = np.empty(theta.shape[2], np.float32)
    for r in range(theta.shape[0]):
        log_weights(theta[r], logw)
        _responsibilities(theta[r], logw, x[r, 0], x[r, 1], e[r], total[r], logp[r])


@compiled
def gradient(theta: F32, x: F32, c: F32, e: F32, total: F32, out: NDArray[np.float64]) -> None:
    """out[R, 5, K] = sum_n c_n grad_theta log pi(x_n), from what `log_density_kept` kept."""
    runs, _, components = theta.shape
    logw = np.empty(components, np.float32)
    scaled = np.empty(x.shape[2], np.float32)
    for r in range(runs):
        log_weights(theta[r], logw)
        g = out[r]
        g[:] = 0.0
        c_sum = 0.0
        for i in range(scaled.size):
            scaled[i] = c[r, i] / total[r, i]
            c_sum += c[r, i]
        _moments(theta[r], x[r, 0], x[r, 1], scaled, e[r], g)
        for k in range(components):
            s0 = g[0, k]
            g[0, k] = s0 - np.exp(np.float64(logw[k])) * c_sum
            g[1, k] *= np.exp(-theta[r, LOG_SD, k])
            g[2, k] *= np.exp(-theta[r, LOG_SD + 1, k])
            g[3, k] -= s0
            g[4, k] -= s0


@compiled
def adam(theta: F32, g: NDArray[np.float64], m: F32, v: F32, t: int, rate: float, min_log_sd: float) -> None:
    """One step of ascent by Adam (Kingma & Ba 2015; 0.9, 0.999, 1e-8), standard deviations kept above a floor."""
    rate_t = rate * np.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
    epsilon = 1e-8 * np.sqrt(1.0 - 0.999**t)
    for r in range(theta.shape[0]):
        for p in range(5):
            for k in range(theta.shape[2]):
                m[r, p, k] = 0.9 * m[r, p, k] + 0.1 * g[r, p, k]
                v[r, p, k] = 0.999 * v[r, p, k] + 0.001 * g[r, p, k] * g[r, p, k]
                step = rate_t * m[r, p, k] / (np.sqrt(v[r, p, k]) + epsilon)
                value = np.float32(theta[r, p, k] + step)
                theta[r, p, k] = min_log_sd if (p >= LOG_SD) & (value < min_log_sd) else value


@compiled
def gather_pairs(
    stored: F32,
    owner: NDArray[np.int64],
    picks: NDArray[np.int32],
    row: NDArray[np.int64],
    x: F32,
    ref: F32,
    first: Any,
) -> None:
    """Minibatches of stored pairs: x[R, 2, 2N] and ref[R, 2N] hold first members, then second ones; first[R, N].

    stored[S, Q, 8] keeps a pair in half a cache line: both points, both reference log-densities, whether the first is
    preferred. Run r reads stored[owner[r]] at picks[row[r]].
    """
    pairs = picks.shape[1]
    for r in range(x.shape[0]):
        source, chosen = stored[owner[r]], picks[row[r]]
        for i in range(pairs):
            pair = source[chosen[i]]
            x[r, 0, i], x[r, 1, i] = pair[0], pair[1]
            x[r, 0, pairs + i], x[r, 1, pairs + i] = pair[2], pair[3]
            ref[r, i], ref[r, pairs + i] = pair[4], pair[5]
            first[r, i] = pair[6] > np.float32(0.5)


@compiled
def squared_distance(x: F32, targets: F32, out: F32) -> None:
    """out[R, N] = squared distance of x[R, 2, N] to the nearest of targets[J, 2]."""
    for r in range(x.shape[0]):
        xr, yr, nearest = x[r, 0], x[r, 1], out[r]
        for j in range(targets.shape[0]):
            tx, ty = targets[j, 0], targets[j, 1]
            for i in range(xr.size):
                d = (xr[i] - tx) * (xr[i] - tx) + (yr[i] - ty) * (yr[i] - ty)
                nearest[i] = d if (j == 0) | (d < nearest[i]) | (d != d) else nearest[i]


@compiled
def proximity(x: F32, targets: F32, width: float, out: F32) -> None:
    """out[R, N] = exp(-d^2 / (2 width^2)), d the distance to the nearest of targets[J, 2]."""
    squared_distance(x, targets, out)
    scale = np.float32(-0.5 / (width * width))
    for r in range(x.shape[0]):
        row = out[r]
        for i in range(row.size):
            row[i] = exp32(scale * row[i])


@compiled
def count_within(x: F32, centres: F32, radius2: float, count: NDArray[np.int64]) -> None:
    """Add to count[R] the number of x[R, 2, N] within sqrt(radius2) of any of centres[J, 2]."""
    distance = np.empty((1, x.shape[2]), np.float32)
    for r in range(x.shape[0]):
        squared_distance(x[r : r + 1], centres, distance)
        near = distance[0]
        inside = np.int32(0)
        for i in range(near.size):
            inside += near[i] <= radius2
        count[r] += inside
