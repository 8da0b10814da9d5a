"""Random streams by name: counter-based (Philox), keyed by seed and purpose, so that no two ever share a number.

Cells of one seed share their noise whatever their beta, algorithm or recipe: differences between them are then less
noisy, and it is drawn once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from numpy.typing import NDArray

PURPOSES = (
    *("p_star", "sft-starts", "distil", "distil-starts", "rehearsal"),
    *("rollouts", "pairs", "labels", "batches"),
)
CHUNK = 50  # updates of noise drawn at a time; part of what the numbers are


def stream(seed: int, purpose: str, occurrence: int = 0, chunk: int = 0) -> Generator:
    """The generator of one purpose in one seed; `occurrence` tells apart stages of one kind in a recipe."""
    return Generator(Philox(SeedSequence((seed, PURPOSES.index(purpose), occurrence, chunk))))


def draws(
    seeds: Sequence[int], purpose: str, occurrence: int, n: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `kernel.sample` needs to draw n points a seed: uniforms u[S, n] and normals z[S, 2, n]."""
    streams = [stream(s, purpose, occurrence) for s in seeds]
    u = np.stack([g.random(n, dtype=np.float32) for g in streams])
    z = np.stack([g.standard_normal((2, n), dtype=np.float32) for g in streams])
    return u, z


def rollout_noise(
    seeds: Sequence[int], occurrence: int, n: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Endless (u[S, n], z[S, 2, n]), one pair an update."""
    for chunk in itertools.count():
        yield from zip(*_rollout_chunk(tuple(seeds), occurrence, n, chunk), strict=True)


@lru_cache(maxsize=32)  # some 50 MB at the default sizes: every algorithm and both orders ask for the same noise
def _rollout_chunk(
    seeds: tuple[int, ...], occurrence: int, n: int, chunk: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """CHUNK updates at once, u[CHUNK, S, n] and z[CHUNK, S, 2, n]; each chunk has its own stream."""
    streams = [stream(s, "rollouts", occurrence, chunk) for s in seeds]
    u = np.stack([g.random((CHUNK, n), dtype=np.float32) for g in streams], axis=1)
    z = np.stack([g.standard_normal((CHUNK, 2, n), dtype=np.float32) for g in streams], axis=1)
    return u, z


def label_noise_once(seeds: Sequence[int], occurrence: int, pairs: int) -> NDArray[np.float32]:
    """The same for pairs that are labelled once: [S, 2, pairs]."""
    return np.stack([stream(s, "labels", occurrence).random((2, pairs), dtype=np.float32) for s in seeds])


def label_noise(seeds: Sequence[int], occurrence: int, pairs: int) -> Iterator[NDArray[np.float32]]:
    """Endless uniforms [S, 2, pairs]: which annotator judges, and the label."""
    streams = [stream(s, "labels", occurrence) for s in seeds]
    while True:
        yield from np.stack([g.random((CHUNK, 2, pairs), dtype=np.float32) for g in streams], axis=1)


def minibatches(seeds: Sequence[int], occurrence: int, stored: int, size: int) -> Iterator[NDArray[np.int32]]:
    """Endless picks [S, size] of stored pairs: a fresh permutation an epoch, so that every pair is used equally."""
    streams = [stream(s, "batches", occurrence) for s in seeds]
    left = np.empty((len(seeds), 0), np.int32)
    while True:
        while left.shape[1] < size:
            epoch = np.stack([g.permutation(stored).astype(np.int32) for g in streams])
            left = np.concatenate([left, epoch], axis=1)
        yield np.ascontiguousarray(left[:, :size])
        left = left[:, size:]
