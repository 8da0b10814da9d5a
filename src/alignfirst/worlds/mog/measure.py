"""Measurements of mixtures by quadrature: no sampling error, so that a difference of cells is one of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.theory.coverage import COVERAGE_N, classify_trap, coverage_profile, expectation
from alignfirst.theory.tilt import (
    Grid,
    Optimum,
    beta_c_on_grid,
    cell_masses,
    disc_weights,
    mixture_log_density,
    square_grid,
    tilt_on_grid,
)
from alignfirst.worlds.mog.mixture import Mixture, p_star, p_target, target_radius
from alignfirst.worlds.mog.reward import Oracle

F64 = NDArray[np.float64]
HALF_WIDTH, STEP = 3.0, 0.025  # the step resolves the smallest standard deviation that training allows
LOST_MASS = 1e-4  # a model with more than this outside is measured component by component
REACH, CELLS = 7.0, 401  # standard deviations and cells of a component's own grid


@dataclass(frozen=True)
class Canvas:
    """A grid, with the fields on it that every model is measured against."""

    grid: Grid
    reward: F64
    in_target: F64
    logp_star: F64
    logp_target: F64

    @classmethod
    def of(cls, settings: Mapping[str, Any], grid: Grid) -> Canvas:
        """From a measure node's settings: `p_star` (weights, variance, targets) and `oracle`."""
        truth = settings["p_star"]
        star, target = p_star(truth), p_target(truth)
        return cls(
            grid,
            Oracle.of(settings["oracle"]).on_points(grid.points),
            disc_weights(grid, truth["targets"], target_radius(truth)),
            mixture_log_density(grid, star.weights, star.means, star.sds),
            mixture_log_density(grid, target.weights, target.means, target.sds),
        )

    @cached_property
    def fields(self) -> F64:
        """What expectations under a model are taken of, [5, cells]."""
        rows = (self.reward, self.reward**2, self.in_target, self.logp_target, self.logp_star)
        return np.stack([r.ravel() for r in rows])

    @cached_property
    def star(self) -> F64:
        return cell_masses(self.logp_star)

    @cached_property
    def target(self) -> F64:
        return cell_masses(self.logp_target)

    def log_density(self, model: Mixture) -> F64:
        return mixture_log_density(self.grid, model.weights, model.means, model.sds)


@dataclass(frozen=True)
class Reference:
    """A model that others are measured against."""

    model: Mixture
    logp: F64  # on the main canvas
    beta_c: float
    target_mass: float
    optima: dict[float, Optimum] = field(default_factory=dict)  # by beta


class Gauge:
    """Measures models of one study. Keeps what it computed of references: they recur for every beta and algorithm."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.main = Canvas.of(settings, square_grid(HALF_WIDTH, STEP))
        self._references: dict[str, Reference] = {}

    def reference(self, key: str, model: Mixture) -> Reference:
        """The reference of that store key."""
        if key not in self._references:
            c, logp = self.main, self.main.log_density(model)
            mass = float(np.clip(np.vdot(cell_masses(logp), c.in_target), 0, 1))
            beta_c = beta_c_on_grid(logp, c.reward, c.grid, c.in_target)
            self._references[key] = Reference(model, logp, beta_c, mass)
        return self._references[key]

    def optimum(self, reference: Reference, beta: float) -> Optimum:
        """pi* of a reference."""
        if beta not in reference.optima:
            c = self.main
            reference.optima[beta] = tilt_on_grid(reference.logp, c.reward, beta, c.grid, c.in_target)
        return reference.optima[beta]

    def describe(self, model: Mixture, sft: Reference, reference: Reference | None) -> dict[str, Any]:
        """What any model is measured by; `reference` for aligned ones."""
        logq = self.main.log_density(model)
        means, kls = np.zeros(5), np.zeros(2)
        for weight, canvas, mass, log_model in self._parts(model, logq):
            means += weight * (canvas.fields @ mass.ravel())
            for i, other in enumerate((sft, reference)):
                if other is not None:
                    log_other = other.logp if canvas is self.main else canvas.log_density(other.model)
                    kls[i] += weight * expectation(mass, log_model - log_other)
        reward, square, in_target, on_target, on_star = means
        profile = coverage_profile(self.main.logp_target, logq, self.main.target)
        return {
            "reward": float(reward),
            "reward_sd": float(np.sqrt(max(square - reward**2, 0.0))),
            "target_mass": float(np.clip(in_target, 0, 1)),
            "target_precision": float(on_target),
            "target_recall": float(np.vdot(self.main.target, logq)),
            "overall_precision": float(on_star),
            "overall_recall": float(np.vdot(self.main.star, logq)),
            "coverage": {str(int(n)): round(float(share), 6) for n, share in zip(COVERAGE_N, profile, strict=True)},
            "kl_to_sft": float(max(kls[0], 0.0)),
        } | ({} if reference is None else {"kl_to_reference": float(max(kls[1], 0.0))})

    def _parts(self, model: Mixture, logq: F64) -> Iterator[tuple[float, Canvas, F64, F64]]:
        """(weight, canvas, cell masses, log-density of the whole model): one part, or one a component that wandered."""
        if abs(float(np.exp(logq).sum()) * self.main.grid.cell - 1) < LOST_MASS:
            yield 1.0, self.main, cell_masses(logq), logq
            return
        for weight, mean, sd in zip(model.weights, model.means, model.sds, strict=True):
            x, y = (np.linspace(m - REACH * s, m + REACH * s, CELLS) for m, s in zip(mean, sd, strict=True))
            canvas = Canvas.of(self.settings, Grid(x, y, float((x[1] - x[0]) * (y[1] - y[0]))))
            own = mixture_log_density(canvas.grid, np.ones(1), mean[None], sd[None])
            yield float(weight), canvas, cell_masses(own), canvas.log_density(model)

    def against_optimum(
        self, found: Mapping[str, Any], reference: Reference, beta: float | None, rollouts: int
    ) -> dict[str, Any]:
        """Exact values beside the measured ones; `beta` is None where no finite optimum exists.

        KL(q || pi*) = KL(q || pi_ref) - E_q R / beta + log Z.
        """
        exact: dict[str, Any] = {"beta_c": reference.beta_c if np.isfinite(reference.beta_c) else None}
        if beta is None:
            return exact
        best = self.optimum(reference, beta)
        mass = float(np.clip(best.target_mass, 0, 1))
        return exact | {
            "exact_reward": best.reward,
            "exact_target_mass": mass,
            "exact_kl": best.kl,
            "kl_to_optimum": max(found["kl_to_reference"] - found["reward"] / beta + best.log_z, 0.0),
            "trap": classify_trap(found["target_mass"], mass, reference.target_mass, rollouts),
        }
