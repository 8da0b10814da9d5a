"""Alignment of R mixtures at once: get samples, ask the algorithm for its coefficients, ascend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from alignfirst.theory.objectives import Algorithm, Answers, shaped_reward
from alignfirst.theory.schedules import SCHEDULES
from alignfirst.worlds.mog import kernel, streams
from alignfirst.worlds.mog.layout import F32
from alignfirst.worlds.mog.reward import Labels, Oracle


@dataclass(frozen=True)
class AlignSettings:
    """What all runs of one call share."""

    algorithm: Algorithm
    updates: int
    samples: int  # an update; twice the number of pairs
    group: int
    epochs: int  # updates on one batch of rollouts, for algorithms that reuse them
    learning_rate: float
    schedule: str
    min_sd: float
    stored_pairs: int
    targets: F32  # [J, 2] centres of T
    radius: float
    occurrence: int  # which align stage of its recipe: a second one draws other noise


@dataclass(frozen=True)
class Runs:
    """What tells R runs apart. `row[r]` is the run's index among the distinct `seeds`, which own the noise."""

    initial: F32  # [R, 5, K]
    reference: F32  # [R, 5, K']
    pair_source: F32 | None  # [R, 5, K'']; offline pairs are drawn from it
    beta: NDArray[np.float32]  # [R, 1]; zero where the algorithm has none
    seeds: Sequence[int]
    row: NDArray[np.int64]


class Batch(Protocol):
    """Samples of one update, x[R, 2, N], and the coefficients that the algorithm gives them."""

    x: F32

    def coefficients(self, logp: F32) -> F32:
        """log pi(x) as it is now, [R, N] -> coefficients [R, N]."""
        ...


@dataclass
class RolloutBatch:
    """Samples of the policy with their rewards; the first forward pass is the sampling policy's."""

    x: F32
    reward: F32
    logp_ref: F32
    beta: F32
    algorithm: Algorithm
    group: int
    at_sampling: tuple[F32, F32] | None = None  # log pi and shaped reward, fixed for all epochs

    def coefficients(self, logp: F32) -> F32:
        if self.at_sampling is None:
            self.at_sampling = logp.copy(), shaped_reward(self.reward, logp, self.logp_ref, self.beta)
        logp_old, shaped = self.at_sampling
        return cast(F32, self.algorithm.coefficients(shaped, logp - logp_old, self.group))


@dataclass
class PairBatch:
    """Labelled pairs: first members, then second ones; first_wins[R, N / 2]; b is the preference scale times beta."""

    x: F32
    logp_ref: F32
    first_wins: NDArray[np.bool_]
    b: F32
    algorithm: Algorithm

    def coefficients(self, logp: F32) -> F32:
        first, half = self.first_wins, logp.shape[1] // 2

        def sides(values: F32) -> tuple[F32, F32]:
            one, other = values[:, :half], values[:, half:]
            return np.where(first, one, other), np.where(first, other, one)

        w, lo = sides(logp)
        point = np.ones_like(w)  # lengths
        seen = self.algorithm.seen(Answers(w, point), Answers(lo, point), *sides(self.logp_ref))
        c_w, c_l = self.algorithm.coefficients(*seen, self.b)
        return np.concatenate([np.where(first, c_w, c_l), np.where(first, c_l, c_w)], axis=1)


@dataclass(frozen=True)
class AlignInfo:
    theta: F32  # [R, 5, K]
    target_draws: NDArray[np.int64]  # [R], draws of T seen in training
    samples: int  # drawn by each run


class Policy:
    """Parameters, optimiser state and what the last forward pass kept. Runs lead."""

    def __init__(self, initial: F32, samples: int) -> None:
        runs, _, components = initial.shape
        self.theta = initial.copy()
        self.m, self.v = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.kept = np.empty((runs, components, samples), np.float32)
        self.total, self.logp = np.empty((runs, samples), np.float32), np.empty((runs, samples), np.float32)
        self.gradient = np.empty(self.theta.shape)
        self.steps = 0

    def forward(self, x: F32) -> F32:
        """log pi(x): [R, N]. The result is overwritten by the next call."""
        kernel.log_density_kept(self.theta, x, self.kept, self.total, self.logp)
        return self.logp

    def ascend(self, x: F32, c: F32, learning_rate: float, min_sd: float) -> None:
        """One Adam step along sum_n c_n grad log pi(x_n), after `forward(x)`."""
        self.steps += 1
        kernel.gradient(self.theta, x, c, self.kept, self.total, self.gradient)
        kernel.adam(self.theta, self.gradient, self.m, self.v, self.steps, learning_rate, np.log(min_sd))


def align(runs: Runs, oracle: Oracle, labels: Labels, s: AlignSettings) -> AlignInfo:
    """Train every run for `s.updates` updates. Nothing in a run depends on which runs stand beside it."""
    policy = Policy(runs.initial, s.samples)
    draws = TargetDraws(s.targets, s.radius, len(runs.beta))
    source = SOURCES[s.algorithm.data](runs, policy, oracle, labels, draws, s)
    reuse = s.epochs if s.algorithm.reuses_batches else 1
    share = SCHEDULES[s.schedule]
    for update in range(s.updates):
        if update % reuse == 0:
            batch = next(source)
        c = batch.coefficients(policy.forward(batch.x))
        policy.ascend(batch.x, c, s.learning_rate * share(update / s.updates), s.min_sd)
    return AlignInfo(policy.theta, draws.count, draws.seen)


class TargetDraws:
    """Counts samples within the radius of a target, for every run."""

    def __init__(self, centres: F32, radius: float, runs: int) -> None:
        self.centres = centres
        self.radius2 = radius * radius
        self.count = np.zeros(runs, np.int64)
        self.seen = 0

    def add(self, x: F32) -> None:
        kernel.count_within(x, self.centres, self.radius2, self.count)
        self.seen += x.shape[2]


def rollouts(
    runs: Runs, policy: Policy, oracle: Oracle, labels: Labels, draws: TargetDraws, s: AlignSettings
) -> Iterator[RolloutBatch]:
    """Samples of the policy as it is now, with their rewards."""
    for u, z in streams.rollout_noise(runs.seeds, s.occurrence, s.samples):
        x = np.empty((len(runs.beta), 2, s.samples), np.float32)
        kernel.sample(policy.theta, u, z, runs.row, x)
        draws.add(x)
        yield RolloutBatch(x, oracle(x), log_density(runs.reference, x), runs.beta, s.algorithm, s.group)


def online_pairs(
    runs: Runs, policy: Policy, oracle: Oracle, labels: Labels, draws: TargetDraws, s: AlignSettings
) -> Iterator[PairBatch]:
    """Pairs of the policy as it is now, labelled on the spot."""
    judged = streams.label_noise(runs.seeds, s.occurrence, s.samples // 2)
    for batch, u in zip(rollouts(runs, policy, oracle, labels, draws, s), judged, strict=False):
        first = labels.first_preferred(oracle.each(batch.x), oracle, u[runs.row])
        yield PairBatch(batch.x, batch.logp_ref, first, labels.scale * runs.beta, s.algorithm)


def offline_pairs(
    runs: Runs, policy: Policy, oracle: Oracle, labels: Labels, draws: TargetDraws, s: AlignSettings
) -> Iterator[PairBatch]:
    """Minibatches of pairs that were drawn and labelled once, before training."""
    shared, owner = _sharing(runs)
    stored, inside = _draw_pairs(runs, shared, oracle, labels, s)
    draws.count += inside[owner]
    draws.seen = 2 * s.stored_pairs
    n = s.samples
    for picks in streams.minibatches(runs.seeds, s.occurrence, s.stored_pairs, n // 2):
        x, ref = np.empty((len(owner), 2, n), np.float32), np.empty((len(owner), n), np.float32)
        first = np.empty((len(owner), n // 2), np.bool_)
        kernel.gather_pairs(stored, owner, picks, runs.row, x, ref, first)
        yield PairBatch(x, ref, first, labels.scale * runs.beta, s.algorithm)


def _sharing(runs: Runs) -> tuple[list[int], NDArray[np.int64]]:
    """Runs that differ in beta alone train on the same pairs: one run for each set, and each run's set."""
    assert runs.pair_source is not None
    sets: dict[tuple[int, bytes, bytes], int] = {}
    models = zip(runs.row.tolist(), runs.pair_source, runs.reference, strict=True)
    identity = [(row, source.tobytes(), reference.tobytes()) for row, source, reference in models]
    owner = np.array([sets.setdefault(i, len(sets)) for i in identity])
    return [identity.index(i) for i in sets], owner


def _draw_pairs(
    runs: Runs, shared: list[int], oracle: Oracle, labels: Labels, s: AlignSettings
) -> tuple[F32, NDArray[np.int64]]:
    """What `kernel.gather_pairs` takes, [S, Q, 8], and how many of each set's 2Q points are in T, [S]."""
    assert runs.pair_source is not None
    m, row = s.stored_pairs, runs.row[shared]
    u, z = streams.draws(runs.seeds, "pairs", s.occurrence, 2 * m)
    x = np.empty((len(shared), 2, 2 * m), np.float32)
    kernel.sample(runs.pair_source[shared], u, z, row, x)
    draws = TargetDraws(s.targets, s.radius, len(shared))
    draws.add(x)
    judged = streams.label_noise_once(runs.seeds, s.occurrence, m)[row]
    stored = np.zeros((len(shared), m, 8), np.float32)
    stored[..., 0:2], stored[..., 2:4] = x[..., :m].swapaxes(1, 2), x[..., m:].swapaxes(1, 2)
    stored[..., 4:6] = log_density(runs.reference[shared], x).reshape(-1, 2, m).swapaxes(1, 2)
    stored[..., 6] = labels.first_preferred(oracle.each(x), oracle, judged)
    return stored, draws.count


def log_density(theta: F32, x: F32) -> F32:
    """log-density [R, N] of x[R, 2, N]."""
    out = np.empty((x.shape[0], x.shape[2]), np.float32)
    kernel.log_density(theta, x, out)
    return out


SOURCES: Mapping[str, Callable[..., Iterator[Batch]]] = {
    "rollouts": rollouts,
    "pairs-online": online_pairs,
    "pairs-offline": offline_pairs,
}
