"""What an audit draws of models that a world can sample and score at will: the same for all of one seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.pooled_draws import Sample

SOURCES = ("reference", "teacher", "preferred")


class Drawing(ABC):
    """Draws of a reference and a teacher, with log-probabilities under both; the teacher may be the reference."""

    target: str  # what counts as a hit, in words
    reference: Any
    teacher: Any

    @abstractmethod
    def sample(self, model: Any, n: int, random: np.random.Generator) -> Sample:
        """n responses of a model."""

    @abstractmethod
    def preferred(self, n: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Rewards [n] of examples of what is wanted."""

    @staticmethod
    def noise(seed: int, source: str) -> np.random.Generator:
        """The stream of one of `SOURCES`: references of one seed are drawn from with the same numbers."""
        return np.random.default_rng([7, seed, SOURCES.index(source)])

    def audit_draws(self, n: int, seed: int) -> AuditDraws:
        """n draws of the reference and, unless it is its own teacher, of the teacher."""
        own = self.sample(self.reference, n, self.noise(seed, "reference"))
        apart = self.teacher is not self.reference
        other = self.sample(self.teacher, n, self.noise(seed, "teacher")) if apart else None
        return AuditDraws(own, other, self.preferred(n, self.noise(seed, "preferred")))
