"""The compiled kernel against plain NumPy in float64, finite differences, and itself in another grouping."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from alignfirst.theory.objectives import ALGORITHMS, Answers, preference_probability, shaped_reward
from alignfirst.theory.schedules import SCHEDULES
from alignfirst.worlds.mog import em, kernel, streams
from alignfirst.worlds.mog.align import AlignSettings, Runs, align
from alignfirst.worlds.mog.reward import Labels, Oracle

RUNS, N = 4, 64
TARGET = np.array([[1.0, 1.0]], np.float32)
ORACLE = Oracle((TARGET,), np.ones(1), 0.5)
BETAS = np.array([[0.1], [0.3], [0.1], [0.3]], np.float32)


def mixtures(components, rng, runs=RUNS):
    theta = np.empty((runs, 5, components), np.float32)
    theta[:, 0] = rng.normal(size=(runs, components))
    theta[:, 1:3] = rng.uniform(-1, 1, (runs, 2, components))
    theta[:, 3:] = np.log(rng.uniform(0.1, 0.4, (runs, 2, components)))
    return theta


def plain_log_density(theta, x):
    """[R, 5, K], [R, 2, N] -> log-density [R, N] and responsibilities [R, K, N], float64."""
    t = theta.astype(float)
    d = (x[:, None] - t[:, 1:3].swapaxes(1, 2)[..., None]) / np.exp(t[:, 3:]).swapaxes(1, 2)[..., None]  # [R, K, 2, N]
    q = log_softmax(t[:, 0], -1)[..., None] - 0.5 * (d**2).sum(2) - t[:, 3:].sum(1)[..., None] - np.log(2 * np.pi)
    logp = logsumexp(q, axis=1)
    return logp, np.exp(q - logp[:, None])


def plain_gradient(theta, x, c):
    """sum_n c_n grad log pi(x_n), written from the formula of a diagonal mixture's score."""
    t = theta.astype(float)
    _, resp = plain_log_density(theta, x)
    sd = np.exp(t[:, 3:])[..., None]  # [R, 2, K, 1]
    d = (x[:, :, None] - t[:, 1:3, :, None]) / sd
    weighted = resp * c[:, None]  # [R, K, N]
    out = np.empty(t.shape)
    out[:, 0] = weighted.sum(-1) - np.exp(log_softmax(t[:, 0], -1)) * c.sum(-1, keepdims=True)
    out[:, 1:3] = (weighted[:, None] * d / sd).sum(-1)
    out[:, 3:] = (weighted[:, None] * (d**2 - 1)).sum(-1)
    return out


def kernel_gradient(theta, x, c):
    runs, _, k = theta.shape
    n = x.shape[2]
    kept, total, logp = (
        np.empty((runs, k, n), np.float32),
        np.empty((runs, n), np.float32),
        np.empty((runs, n), np.float32),
    )
    kernel.log_density_kept(theta, x, kept, total, logp)
    out = np.empty(theta.shape)
    kernel.gradient(theta, x, c, kept, total, out)
    return logp, out


@pytest.mark.parametrize("components", (1, 4, 16))
@pytest.mark.parametrize("n", (64, 256, 1000))
def test_log_density_and_gradient_equal_numpy(components, n):
    rng = np.random.default_rng(components)
    theta, x = mixtures(components, rng), rng.normal(size=(RUNS, 2, n)).astype(np.float32)
    c = rng.normal(size=(RUNS, n)).astype(np.float32) / n
    logp, gradient = kernel_gradient(theta, x, c)
    expected, _ = plain_log_density(theta, x.astype(float))
    np.testing.assert_allclose(logp, expected, rtol=3e-6, atol=1e-5)
    np.testing.assert_allclose(gradient, plain_gradient(theta, x.astype(float), c), rtol=1e-4, atol=3e-5)
    tiled = np.empty_like(logp)
    kernel.log_density(theta, x, tiled)
    np.testing.assert_allclose(tiled, expected, rtol=3e-6, atol=1e-5)


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(7)
    theta, x = mixtures(3, rng, 1), rng.normal(size=(1, 2, N))
    c, h = rng.normal(size=(1, N)), 1e-6
    numeric = np.empty((5, 3))
    for i in np.ndindex(5, 3):
        step = np.zeros((1, 5, 3))
        step[0][i] = h
        up, _ = plain_log_density(theta + step, x)
        down, _ = plain_log_density(theta - step, x)
        numeric[i] = ((up - down) * c).sum() / (2 * h)
    np.testing.assert_allclose(plain_gradient(theta, x, c)[0], numeric, rtol=1e-6, atol=1e-6)
    _, ours = kernel_gradient(theta, x.astype(np.float32), c.astype(np.float32))
    np.testing.assert_allclose(ours[0], numeric, rtol=2e-4, atol=2e-4)


def test_exponential_and_logarithm_are_accurate():
    from numba import njit

    exp32, log32 = kernel.exp32, kernel.log32

    @njit
    def both(x, e, g):
        for i in range(x.size):
            e[i] = exp32(-x[i])
            g[i] = log32(x[i])

    x = np.logspace(-30, 1.93, 20_000).astype(np.float32)
    e, g = np.empty_like(x), np.empty_like(x)
    both(x, e, g)
    error = np.abs(e / np.exp(-x.astype(float)) - 1)
    assert (error < 3e-7 + 1.2e-7 * x).all()
    np.testing.assert_allclose(g, np.log(x.astype(float)), rtol=3e-7, atol=3e-7)


def test_sampling_follows_the_mixture():
    """Component shares and moments within 5 standard errors."""
    rng = np.random.default_rng(8)
    theta, n = mixtures(3, rng, 2), 200_000
    u, z = streams.draws([0], "p_star", 0, n)
    x = np.empty((2, 2, n), np.float32)
    kernel.sample(theta, u, z, np.zeros(2, np.int64), x)
    t = theta.astype(float)
    w = np.exp(log_softmax(t[:, 0], -1))
    mean = (w[:, None] * t[:, 1:3]).sum(-1)
    second = (w[:, None] * (t[:, 1:3] ** 2 + np.exp(2 * t[:, 3:]))).sum(-1)
    error = np.sqrt((second - mean**2) / n)
    assert (np.abs(x.mean(-1) - mean) < 5 * error).all()
    assert (np.abs((x.astype(float) ** 2).mean(-1) - second) < 5 * (x.astype(float) ** 2).std(-1) / np.sqrt(n)).all()


def test_nan_is_never_hidden():
    rng = np.random.default_rng(9)
    theta, x = mixtures(4, rng), rng.normal(size=(RUNS, 2, N)).astype(np.float32)
    theta[1, 1, 2] = np.nan
    logp, gradient = kernel_gradient(theta, x, np.ones((RUNS, N), np.float32))
    assert np.isnan(logp[1]).all() and np.isnan(gradient[1]).any()
    assert np.isfinite(logp[[0, 2, 3]]).all()


def settings(algorithm, updates=12, schedule="constant"):
    return AlignSettings(
        algorithm=ALGORITHMS[algorithm], updates=updates, samples=N, group=8, epochs=4, learning_rate=0.02, min_sd=0.02,
        schedule=schedule, stored_pairs=96, targets=TARGET, radius=0.474, occurrence=0,
    )  # fmt: skip


def runs_of(theta, seeds=(3, 4), row=(0, 0, 1, 1), betas=BETAS):
    return Runs(theta, theta, theta, betas, list(seeds), np.array(row))


def runs_of_three(rng):
    """Initial, reference and pair source are three models of three sizes, in runs of two seeds.

    Two runs of a seed have one pair source: of the first seed with two references, of the second with one.
    """
    initial, reference, source = (mixtures(components, rng) for components in (4, 3, 5))
    source[[1, 3]], reference[3] = source[[0, 2]], reference[2]
    return Runs(initial, reference, source, BETAS, [3, 4], np.array([0, 0, 1, 1]))


LABELS = Labels("bradley-terry", 2.0, 0.1)


def plain_align(runs, s):
    """The whole of training in NumPy, float64, one update after another as the definitions read."""
    theta = runs.initial.astype(float)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    half, beta = s.samples // 2, runs.beta.astype(float)
    rolled = streams.rollout_noise(runs.seeds, 0, s.samples)
    judged = streams.label_noise(runs.seeds, 0, half)
    picks = streams.minibatches(runs.seeds, 0, s.stored_pairs, half)
    if s.algorithm.data == "pairs-offline":
        stored = plain_sample(runs.pair_source, *streams.draws(runs.seeds, "pairs", 0, 2 * s.stored_pairs), runs.row)
        stored_wins = plain_labels(stored, streams.label_noise_once(runs.seeds, 0, s.stored_pairs)[runs.row])
    for update in range(s.updates):
        if s.algorithm.data == "pairs-offline":
            chosen = next(picks)[runs.row]
            both = np.concatenate([chosen, chosen + s.stored_pairs], 1)
            x = np.stack([stored[r][:, both[r]] for r in range(len(both))])
            first = np.take_along_axis(stored_wins, chosen, 1)
        elif not s.algorithm.reuses_batches or update % s.epochs == 0:
            x = plain_sample(theta, *next(rolled), runs.row)
            if s.algorithm.on_pairs:
                first = plain_labels(x, next(judged)[runs.row])
        logp, _ = plain_log_density(theta, x)
        logp_ref, _ = plain_log_density(runs.reference, x)
        if s.algorithm.on_pairs:
            w, lo = (np.where(wins, logp[:, :half], logp[:, half:]) for wins in (first, ~first))
            ref = [np.where(wins, logp_ref[:, :half], logp_ref[:, half:]) for wins in (first, ~first)]
            seen = s.algorithm.seen(*(Answers(x, np.ones_like(x)) for x in (w, lo)), *ref)
            c_w, c_l = s.algorithm.coefficients(*seen, LABELS.scale * beta)
            c = np.concatenate([np.where(first, c_w, c_l), np.where(first, c_l, c_w)], 1)
        else:
            if not s.algorithm.reuses_batches or update % s.epochs == 0:
                old, shaped = logp, shaped_reward(plain_reward(x), logp, logp_ref, beta)
            c = s.algorithm.coefficients(shaped, logp - old, s.group)
        g = plain_gradient(theta, x, c)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        t = update + 1
        rate = s.learning_rate * SCHEDULES[s.schedule](update / s.updates)
        theta = theta + rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        theta[:, 3:] = np.maximum(theta[:, 3:], np.log(s.min_sd))
    return theta


def plain_sample(theta, u, z, row):
    t = theta.astype(float)
    edges = np.cumsum(np.exp(log_softmax(t[:, 0], -1)), -1)[:, :-1]
    k = (u[row][:, None] >= edges[..., None].astype(np.float32)).sum(1)  # [R, N]
    at = np.take_along_axis(t[:, 1:], k[:, None].repeat(4, 1), 2)
    return at[:, :2] + np.exp(at[:, 2:]) * z[row]


def plain_reward(x):
    return np.exp(-((x - TARGET[0][:, None]) ** 2).sum(1) / (2 * 0.5**2))


def plain_labels(x, u):
    r, half = plain_reward(x), x.shape[2] // 2
    return u[:, 1] < preference_probability(r[:, :half], r[:, half:], LABELS.scale, LABELS.flip)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_equals_plain_numpy(algorithm):
    """A dozen updates. Adam divides by its own scale, so that float32 noise stays relative to the rate."""
    runs, s = runs_of_three(np.random.default_rng(10)), settings(algorithm)
    ours = align(runs, ORACLE, LABELS, s).theta
    expected = plain_align(runs, s)
    assert np.abs(ours - runs.initial).max() > 0.05  # it moved
    np.testing.assert_allclose(ours, expected, atol=0.02 * s.learning_rate * s.updates)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_follow_their_schedule(schedule):
    runs, s = runs_of_three(np.random.default_rng(10)), settings("dpo-offline", schedule=schedule)
    np.testing.assert_allclose(align(runs, ORACLE, LABELS, s).theta, plain_align(runs, s), atol=0.02 * 0.02 * s.updates)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_halves_equal_the_whole_bit_for_bit(algorithm):
    theta = mixtures(4, np.random.default_rng(11))
    whole = align(runs_of(theta), ORACLE, LABELS, settings(algorithm))
    for part, seed in ((slice(0, 2), 3), (slice(2, 4), 4)):
        half = align(runs_of(theta[part], [seed], [0, 0], BETAS[part]), ORACLE, LABELS, settings(algorithm))
        assert half.theta.tobytes() == whole.theta[part].tobytes()
        assert (half.target_draws == whole.target_draws[part]).all()


@pytest.mark.parametrize("algorithm", [name for name, a in ALGORITHMS.items() if a.data == "pairs-offline"])
def test_runs_of_one_pair_source_and_seed_keep_their_own_references(algorithm):
    """Together as alone, bit for bit, though they learn from the same pairs."""
    runs, s = runs_of_three(np.random.default_rng(13)), settings(algorithm)
    together = align(runs, ORACLE, LABELS, s).theta
    for r, seed in enumerate((3, 3, 4, 4)):
        one = slice(r, r + 1)
        parts = (x[one] for x in (runs.initial, runs.reference, runs.pair_source, runs.beta))
        alone = align(Runs(*parts, [seed], np.array([0])), ORACLE, LABELS, s).theta
        assert alone.tobytes() == together[one].tobytes()


def test_a_step_never_crosses_the_floor_of_the_standard_deviations():
    """Adam's first step is the rate itself, up or down. On both axes sd stops at the floor; nothing else does."""
    floor, rate = np.log(0.02), 0.1
    theta = np.full((1, 5, 2), floor + 0.04, np.float32)
    up_and_down = np.broadcast_to([1.0, -1.0], theta.shape).copy()
    kernel.adam(theta, up_and_down, np.zeros_like(theta), np.zeros_like(theta), 1, rate, floor)
    free, stopped = [floor + 0.04 + rate, floor + 0.04 - rate], [floor + 0.04 + rate, floor]
    np.testing.assert_allclose(theta[0], [free] * 3 + [stopped] * 2, atol=1e-5)


def test_em_climbs_and_equals_numpy_steps():
    """Each EM iteration equals the textbook update in float64, and never loses likelihood."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(1, 2, 3000)).astype(np.float32)
    u = rng.random((1, 1, 5), dtype=np.float32)
    row = np.zeros(1, np.int64)
    last, scores = None, []
    for iterations in range(1, 12):
        fit = em.fit(x, u, row, iterations, -1.0, 1e-3)
        scores.append(fit.log_likelihood[0])
        if last is not None:
            _, resp = plain_log_density(last, x.astype(float))
            mass = resp[0].sum(-1)
            mean = (resp[0] @ x[0].T.astype(float)) / mass[:, None]
            variance = (resp[0] @ (x[0].T.astype(float) ** 2)) / mass[:, None] - mean**2
            np.testing.assert_allclose(fit.theta[0, 1:3].T, mean, atol=2e-5)
            np.testing.assert_allclose(np.exp(2 * fit.theta[0, 3:].T), np.maximum(variance, 1e-3), atol=5e-5)
            np.testing.assert_allclose(np.exp(log_softmax(fit.theta[0, 0])), mass / 3000, atol=2e-6)
        last = fit.theta
    assert (np.diff(scores) > -1e-6).all() and scores[-1] > scores[0]


def test_em_survives_degenerate_data():
    x = np.ones((1, 2, 50), np.float32)
    fit = em.fit(x, np.full((1, 2, 3), 0.5, np.float32), np.zeros(1, np.int64), 20, 1e-4, 1e-3)
    assert np.isfinite(fit.theta[:, 1:]).all()
    assert np.exp(2 * fit.theta[:, 3:]).min() >= 1e-3 * 0.999
