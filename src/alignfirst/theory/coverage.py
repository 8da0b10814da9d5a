"""What a model covers: precision, recall, KL, coverage profile, draws that show a behaviour, and which trap it is in.

Arrays in, arrays out. All logarithms are natural, in nats. Fields on a grid are [..., n, m]; samples are [..., N].
Precision and recall as likelihoods: Cha and Cho, arXiv 2505.13111.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from alignfirst.errors import InputError
from alignfirst.theory.tilt import FloatArray, cell_masses, require_masses

Trap = Literal["anchor", "sampling", "exploration"]

COVERAGE_N = (10, 100, 1000)
EXPECTED_DRAWS = 10  # fewer expected draws of T than this in a whole budget: the optimiser hardly ever sees it


class Estimate(NamedTuple):
    """A mean over samples and its standard error (NaN for a single sample), each [...]."""

    value: FloatArray
    standard_error: FloatArray


def expectation(mass: FloatArray, values: FloatArray) -> FloatArray:
    """sum of mass * values over a grid, [..., n, m] -> [...]; where there is no mass no value counts, not even -inf."""
    with np.errstate(invalid="ignore"):
        products = mass * values
    return np.asarray(np.where(mass > 0, products, 0.0).sum((-2, -1)))


def precision(logq: FloatArray, logp: FloatArray) -> FloatArray:
    """precision(q; p) = E_{x~q} log p(x), from log-densities on one grid; q is taken as restricted to the grid."""
    return expectation(cell_masses(logq), logp)


def recall(logq: FloatArray, logp: FloatArray) -> FloatArray:
    """recall(q; p) = E_{x~p} log q(x), from log-densities on one grid; p is taken as restricted to the grid."""
    return expectation(cell_masses(logp), logq)


def kl(logq: FloatArray, logp: FloatArray) -> FloatArray:
    """KL(q || p) = E_{x~q} [log q(x) - log p(x)], from log-densities on one grid; inf where p misses mass of q."""
    with np.errstate(invalid="ignore"):
        return expectation(cell_masses(logq), logq - logp)


def mean_log_likelihood(logp: ArrayLike) -> Estimate:
    """Precision from q's samples under p, or recall from p's samples under q: log-probabilities [..., N] -> [...]."""
    values = np.asarray(logp, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError("there must be at least one sample", values.shape, "Draw samples first.")
    count = values.shape[-1]
    if count == 1:
        return Estimate(values[..., 0], np.full(values.shape[:-1], np.nan))
    return Estimate(np.asarray(values.mean(-1)), np.asarray(values.std(-1, ddof=1) / np.sqrt(count)))


def kl_from_samples(logq: ArrayLike, logp: ArrayLike) -> Estimate:
    """KL(q || p) from log-probabilities [..., N] of q's own samples. Unbiased, so it may come out slightly negative."""
    return mean_log_likelihood(np.asarray(logq, dtype=np.float64) - np.asarray(logp, dtype=np.float64))


def coverage_profile(
    logp_target: FloatArray, logp_model: FloatArray, weights: FloatArray, n: Sequence[float] = COVERAGE_N
) -> FloatArray:
    """Share of x ~ p_target with log p_target(x) - log q(x) <= log N, for every N of `n`.

    All three are 1-D, or of one shape: the weights are p_target's cell masses on a grid (`cell_masses`), or equal for
    samples of it. They are normalised here. Returns [len(n)].
    """
    w = np.asarray(weights, dtype=np.float64)
    total = float(w.sum())
    if not ((w >= 0).all() and np.isfinite(total) and total > 0):
        raise InputError("weights must be finite, >= 0 and not all 0", weights, "Give p_target's masses.")
    if not all(np.isfinite(v) and v > 0 for v in n):
        raise InputError("n must be positive numbers", n, f"The usual ones are {COVERAGE_N}.")
    return np.array([float(w[logp_target <= logp_model + np.log(v)].sum()) / total for v in n])


def miss_probability(mass: ArrayLike, draws: ArrayLike) -> FloatArray:
    """(1 - mass)^draws: the probability that so many draws never show a behaviour of that mass. Broadcasts."""
    e, count = require_masses("mass", mass), np.asarray(draws, dtype=np.float64)
    if not (count >= 0).all():
        raise InputError("draws must be >= 0", draws, "Give the number of rollouts.")
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.exp(count * np.log1p(-e))
    return np.asarray(np.where(count == 0, 1.0, missed))  # also for a mass of 1, where 0 * inf is NaN


def draws_needed(mass: ArrayLike, probability: ArrayLike) -> FloatArray:
    """Fewest draws that show a behaviour at least once with the given probability in [0, 1): whole numbers, or inf.

    log(1 - probability) / log(1 - mass), rounded up. Broadcasts.
    """
    e, p = np.broadcast_arrays(require_masses("mass", mass), np.asarray(probability, dtype=np.float64))
    if not ((p >= 0) & (p < 1)).all():
        raise InputError("probability must lie in [0, 1)", probability, "Certainty takes endless draws: try 0.99.")
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.log1p(-p) / np.log1p(-e)
    exact = np.where(p == 0, 0.0, exact)  # nothing asked; for a mass of 0 the quotient would be NaN
    count = np.ceil(exact * (1 - 1e-12))  # so that rounding does not turn an exact 2 into 3
    return np.asarray(np.where((p > 0) & (count < 1), 1.0, count))


def classify_trap(
    target_mass: float, exact_target_mass: float, reference_target_mass: float, planned_rollouts: float
) -> Trap | None:
    """Which low-recall trap an aligned model sits in; None where it has more than half of its mass on T.

    `anchor` (learning trap): the exact optimum of its reference has no more than half either, so no optimiser escapes.
    `sampling`: the optimum has, but fewer than 10 draws of T are expected in the whole budget of rollouts at the
    reference's mass. `exploration`: draws are expected, and the optimiser still did not get there. Raises InputError
    for anything that is not a probability, and for a negative budget.
    """
    masses = np.array([target_mass, exact_target_mass, reference_target_mass])
    got, exact, reference = (float(m) for m in require_masses("target mass", masses))
    if not planned_rollouts >= 0:
        raise InputError("planned rollouts must be >= 0", planned_rollouts, "Give updates x samples an update.")
    if got > 0.5:
        return None
    if exact <= 0.5:
        return "anchor"
    return "sampling" if planned_rollouts * reference < EXPECTED_DRAWS else "exploration"
