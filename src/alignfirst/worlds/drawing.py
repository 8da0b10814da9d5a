"""What an audit draws of models that a world can sample and score at will: the same for all of one seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.auditing.share_intervals import Floats
from alignfirst.nodes import Artefact

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
    def preferred(self, n: int, random: np.random.Generator) -> Floats:
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

    def artefact(self, n: int, seed: int) -> Artefact:
        """The same draws, with the teacher's also where it is the reference, as the output of a node; see `drawn`."""
        arrays = {"preferred": self.preferred(n, self.noise(seed, "preferred"))}
        for model, source in ((self.reference, "reference"), (self.teacher, "teacher")):
            sample = self.sample(model, n, self.noise(seed, source))
            arrays |= {f"{source}/{name}": values for name, values in vars(sample).items() if values is not None}
        return Artefact(arrays, {"target": self.target})


def drawn(artefact: Artefact) -> tuple[Sample, Sample, Floats, str]:
    """Draws of the reference and of the teacher, rewards of what is wanted, and what counts as a hit, in words."""
    parts: dict[str, dict[str, Any]] = {"reference": {}, "teacher": {}}
    for place, values in artefact.arrays.items():
        source, _, name = place.partition("/")
        if name:
            parts[source][name] = values
    return (
        Sample(**parts["reference"]),
        Sample(**parts["teacher"]),
        artefact.arrays["preferred"],
        artefact.meta["target"],
    )
