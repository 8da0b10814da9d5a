"""What an audit draws of a mixture: points with their rewards, membership in T and densities under two models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.nodes import Json
from alignfirst.world import AuditDraws, Drawn
from alignfirst.worlds.mog import kernel
from alignfirst.worlds.mog.align import log_density
from alignfirst.worlds.mog.layout import F32
from alignfirst.worlds.mog.mixture import p_target, target_radius
from alignfirst.worlds.mog.reward import Oracle


class Drawing:
    """Draws from mixtures of one study, with log-densities under a reference and a teacher, theta[5, K] each."""

    sources = ("reference", "teacher", "preferred")

    def __init__(self, settings: Mapping[str, Json], reference: F32, teacher: F32) -> None:
        self.oracle = Oracle.of(settings["oracle"])
        self.centres = np.array(settings["p_star"]["targets"], np.float64)
        self.radius = target_radius(settings["p_star"])
        self.p_target = p_target(settings["p_star"]).theta()
        self.reference, self.teacher = reference, teacher
        self.target = f"within {self.radius:.3f} of a target mode"

    @classmethod
    def noise(cls, seed: int, source: str) -> np.random.Generator:
        """The stream of one of `sources`: references of one seed are drawn from with the same numbers."""
        return np.random.default_rng([7, seed, cls.sources.index(source)])

    def sample(self, theta: F32, n: int, random: np.random.Generator) -> Drawn:
        x = points(theta, n, random)
        distance = np.min([np.hypot(*(x[0] - centre[:, None])) for centre in self.centres], axis=0)
        logp = [log_density(model[None], x)[0].astype(np.float64) for model in (self.reference, self.teacher)]
        return Drawn(self._reward(x), distance <= self.radius, *logp)

    def preferred(self, n: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Rewards of draws of p_target."""
        return self._reward(points(self.p_target, n, random))

    def _reward(self, x: F32) -> NDArray[np.float64]:
        return np.asarray(self.oracle(x)[0].astype(np.float64))


def draw(settings: Mapping[str, Json], reference: F32, teacher: F32 | None) -> AuditDraws:
    """Draws of a reference and, unless it is its own teacher, of its teacher."""
    drawing = Drawing(settings, reference, reference if teacher is None else teacher)
    n, seed = settings["samples"], settings["seed"]
    own = drawing.sample(reference, n, drawing.noise(seed, "reference"))
    other = None if teacher is None else drawing.sample(teacher, n, drawing.noise(seed, "teacher"))
    return AuditDraws(own, other, drawing.preferred(n, drawing.noise(seed, "preferred")))


def points(theta: Any, n: int, random: np.random.Generator) -> F32:
    """n points of a mixture, [1, 2, n]."""
    x = np.empty((1, 2, n), np.float32)
    u = random.random((1, n), dtype=np.float32)
    z = random.standard_normal((1, 2, n), dtype=np.float32)
    kernel.sample(theta[None], u, z, np.zeros(1, np.int64), x)
    return x
