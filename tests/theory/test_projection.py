"""Projection on a given size, against exact moments, recoverable mixtures and a plain EM with random restarts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp

from alignfirst.errors import InputError
from alignfirst.theory.projection import FLOOR, Mixture, _halve, merge_components, project, refine
from alignfirst.theory.tilt import Grid, cell_masses, mixture_log_density, square_grid

GRID, ROUGH = square_grid(3.0, 0.05), square_grid(3.0, 0.1)
MODES = np.array([p for p in itertools.product((-1.0, 0.0, 1.0), repeat=2) if p != (0.0, 0.0)])
SD = 0.025**0.5


def modes(weights: list[float], sd: float = SD) -> Mixture:
    w = np.array(weights)
    return Mixture(w / w.sum(), MODES[: w.size], np.full((w.size, 2), sd))


def overall_moments(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    mean = mixture.weights @ mixture.means
    return mean, mixture.weights @ (mixture.sds**2 + mixture.means**2) - mean**2


def divergence(teacher: Mixture, student: Mixture) -> float:
    logp, logq = mixture_log_density(GRID, *teacher), mixture_log_density(GRID, *student)
    return float((cell_masses(logp) * (logp - logq)).sum())


def plain_em(teacher: Mixture, components: int, restarts: int, seed: int) -> float:
    """Smallest KL(teacher || fit) of textbook EM with responsibilities, from random cells."""
    rng = np.random.default_rng(seed)
    mass = cell_masses(mixture_log_density(ROUGH, *teacher)).ravel()
    heavy = mass > 1e-6
    x, p = ROUGH.points.reshape(-1, 2)[heavy], mass[heavy] / mass[heavy].sum()
    best = np.inf
    for _ in range(restarts):
        w, means = np.full(components, 1 / components), x[rng.choice(p.size, components, p=p)]
        sds = np.full((components, 2), 0.3)
        for _ in range(100):
            z = (x[:, None] - means) / sds
            log_terms = (-0.5 * z * z - np.log(sds)).sum(-1) + np.log(w)
            r = np.exp(log_terms - logsumexp(log_terms, axis=1, keepdims=True)) * p[:, None]  # [P, K]
            w = r.sum(0) + 1e-15
            means = r.T @ x / w[:, None]
            sds = np.sqrt(np.maximum(r.T @ x**2 / w[:, None] - means**2, FLOOR))
            w = w / w.sum()
        best = min(best, divergence(teacher, Mixture(w, means, sds)))
    return best


def test_one_component_takes_the_moments() -> None:
    teacher = modes([0.2, 0.06, 0.2, 0.06, 0.2, 0.2, 0.06, 0.02])
    mean, variance = overall_moments(teacher)
    student = project(mixture_log_density(GRID, *teacher), GRID, 1)
    np.testing.assert_allclose(student.means[0], mean, atol=1e-6)
    np.testing.assert_allclose(student.sds[0] ** 2, variance, atol=1e-6)
    assert student.weights.tolist() == [1.0]


@pytest.mark.parametrize("sd", [SD, 0.08])
@pytest.mark.parametrize("components", [2, 4, 8])
def test_a_mixture_of_the_same_size_is_recovered(components: int, sd: float) -> None:
    teacher = modes([3.0, 1.0, 2.0, 1.0, 4.0, 2.0, 1.0, 1.0][:components], sd)
    student = project(mixture_log_density(GRID, *teacher), GRID, components)
    assert divergence(teacher, student) < 1e-3  # EM stops where an iteration gains less than 1e-4
    nearest = ((student.means[:, None] - teacher.means) ** 2).sum(-1).argmin(1)
    assert sorted(nearest) == list(range(components))
    np.testing.assert_allclose(student.weights, teacher.weights[nearest], atol=2e-3)
    np.testing.assert_allclose(student.means, teacher.means[nearest], atol=5e-3)


@pytest.mark.parametrize("components", [2, 3, 4, 6])
def test_overall_moments_are_kept(components: int) -> None:
    # after any M step sum_k w_k mean_k is the density's own mean; so are second moments, with no sd at the floor
    teacher = modes([0.2, 0.06, 0.2, 0.06, 0.2, 0.2, 0.06, 0.02])
    student = project(mixture_log_density(GRID, *teacher), GRID, components)
    for got, expected in zip(overall_moments(student), overall_moments(teacher), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("weights", [[8, 0.2, 8, 0.2, 8, 8, 0.2, 0.01], [1] * 8, [1, 6, 20, 6, 20, 20, 6, 2]])
def test_as_good_as_forty_random_restarts(weights: list[float]) -> None:
    teacher = modes(weights)
    student = project(mixture_log_density(GRID, *teacher), GRID, 4, guess=merge_components(teacher, 4))
    # 5e-3 nats: fifty times EM's stopping rule, a tenth of the gap to the next optimum in these
    assert divergence(teacher, student) <= plain_em(teacher, 4, 40, seed=0) + 5e-3


def test_the_floor_holds_and_a_point_mass_is_survived() -> None:
    spike = np.full(GRID.shape, -np.inf)
    spike[60, 60] = 0.0
    for components in (1, 3):
        student = project(spike, GRID, components)
        assert all(np.isfinite(a).all() for a in student)
        np.testing.assert_allclose(student.sds, FLOOR**0.5)
        np.testing.assert_allclose(student.weights @ student.means, 0.0, atol=1e-12)


def test_projection_is_deterministic_and_takes_unnormalised_densities() -> None:
    density = mixture_log_density(GRID, *modes([5, 1, 3, 1, 4, 1, 1, 1]))
    first, second, shifted = (project(density + shift, GRID, 4) for shift in (0.0, 0.0, 300.0))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    for a, b in zip(first, shifted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_refine_stays_at_an_optimum_and_never_gets_worse() -> None:
    teacher = modes([1, 2, 3, 4])
    density = mixture_log_density(GRID, *teacher)
    assert divergence(teacher, refine(density, GRID, teacher)) == pytest.approx(0.0, abs=1e-6)
    rough = teacher._replace(means=teacher.means + 0.1, sds=1.5 * teacher.sds)
    refined = refine(density, GRID, rough)
    assert divergence(teacher, refined) < 1e-3 < divergence(teacher, rough)


def test_halving_a_grid_keeps_mass_and_mean() -> None:
    mass = cell_masses(mixture_log_density(GRID, *modes([5, 1, 3, 1, 4, 1, 1, 1])))
    even = Grid(GRID.x[:-1], GRID.y[:-1], GRID.cell)
    for trimmed, lattice in ((mass, GRID), (mass[:-1, :-1], even)):
        halved, grid = _halve(trimmed, lattice)
        assert halved.sum() == pytest.approx(trimmed.sum(), rel=1e-12)
        # a point is at most half a step from its block's middle, and those errors cancel for a smooth density
        for axis, coarse, fine in ((1, grid.x, lattice.x), (0, grid.y, lattice.y)):
            assert halved.sum(axis) @ coarse == pytest.approx(trimmed.sum(axis) @ fine, abs=1e-6)


def test_a_good_guess_is_followed() -> None:
    teacher = modes([1] * 8, 0.05)
    guess = merge_components(teacher, 4)
    density = mixture_log_density(GRID, *teacher)
    with_guess = divergence(teacher, project(density, GRID, 4, guess=guess))
    assert with_guess <= divergence(teacher, refine(density, GRID, guess)) + 1e-9
    assert with_guess <= divergence(teacher, project(density, GRID, 4)) + 1e-9


def test_merging_keeps_moments_and_takes_the_cheapest_pair() -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture(rng.dirichlet(np.ones(6)), rng.uniform(-1, 1, (6, 2)), rng.uniform(0.1, 0.4, (6, 2)))
    for size in (1, 3, 5):
        merged = merge_components(mixture, size)
        for got, expected in zip(overall_moments(merged), overall_moments(mixture), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)

    def bound(i: int, j: int) -> float:
        (a, b), (u, v) = mixture.weights[[i, j]], mixture.sds[[i, j]] ** 2
        pair = Mixture(mixture.weights[[i, j]] / (a + b), mixture.means[[i, j]], mixture.sds[[i, j]])
        return 0.5 * float((a + b) * np.log(overall_moments(pair)[1]).sum() - a * np.log(u).sum() - b * np.log(v).sum())

    i, j = min(itertools.combinations(range(6), 2), key=lambda pair: bound(*pair))
    merged = merge_components(mixture, 5)
    assert merged.weights[i] == pytest.approx(mixture.weights[i] + mixture.weights[j])
    np.testing.assert_array_equal(np.delete(merged.means, i, 0), np.delete(mixture.means, [i, j], 0))


def test_merging_twins_and_absent_components_costs_nothing() -> None:
    twins = Mixture(np.array([0.3, 0.0, 0.2, 0.5]), np.array([[1.0, 0], [5, 5], [1, 0], [-1, 0]]), np.full((4, 2), 0.1))
    merged = merge_components(twins, 2)
    np.testing.assert_allclose(merged.weights, [0.5, 0.5])
    np.testing.assert_allclose(merged.means, [[1, 0], [-1, 0]])
    np.testing.assert_allclose(merged.sds, 0.1)


def test_bad_size_is_refused() -> None:
    with pytest.raises(InputError, match="components"):
        project(np.zeros(GRID.shape), GRID, 0)
