"""What an audit draws of a mixture: points with their rewards, membership in T and densities under two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.nodes import Artefact, Json, Load, Node, Outcome
from alignfirst.worlds.drawing import Drawing
from alignfirst.worlds.mog import kernel
from alignfirst.worlds.mog.align import log_density
from alignfirst.worlds.mog.layout import F32
from alignfirst.worlds.mog.mixture import p_target, target_radius
from alignfirst.worlds.mog.reward import Oracle


class MixtureDrawing(Drawing):
    """Draws from mixtures of one study, with log-densities under a reference and a teacher, theta[5, K] each."""

    def __init__(self, settings: Mapping[str, Json], reference: F32, teacher: F32) -> None:
        self.oracle = Oracle.of(settings["oracle"])
        self.centres = np.array(settings["p_star"]["targets"], np.float64)
        self.radius = target_radius(settings["p_star"])
        self.p_target = p_target(settings["p_star"]).theta()
        self.reference, self.teacher = reference, teacher
        self.target = f"within {self.radius:.3f} of a target mode"

    def sample(self, theta: F32, n: int, random: np.random.Generator) -> Sample:
        x = points(theta, n, random)
        distance = np.min([np.hypot(*(x[0] - centre[:, None])) for centre in self.centres], axis=0)
        logp = [log_density(model[None], x)[0].astype(np.float64) for model in (self.reference, self.teacher)]
        return Sample.of(self._reward(x), distance <= self.radius, logp_reference=logp[0], logp_teacher=logp[1])

    def preferred(self, n: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Rewards of draws of p_target."""
        return self._reward(points(self.p_target, n, random))

    def _reward(self, x: F32) -> NDArray[np.float64]:
        return np.asarray(self.oracle(x)[0].astype(np.float64))


def audit_draws(settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
    """Draws of the model in a role and, unless it is its own teacher, of the sft model."""
    reference = load(inputs[role]).arrays["theta"]
    teacher = reference if inputs[role] == inputs["sft"] else load(inputs["sft"]).arrays["theta"]
    return MixtureDrawing(settings, reference, teacher).audit_draws(settings["samples"], settings["seed"])


def run_draw(nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Draws of a reference and a teacher, with densities under both, for an audit of its own."""
    return [
        _drawn(node, *(load(node.inputs[role]).arrays["theta"] for role in ("reference", "teacher"))) for node in nodes
    ]


def _drawn(node: Node, reference: F32, teacher: F32) -> Artefact:
    s = node.settings
    return MixtureDrawing(s, reference, teacher).artefact(s["samples"], s["seed"])


def points(theta: Any, n: int, random: np.random.Generator) -> F32:
    """n points of a mixture, [1, 2, n]."""
    x = np.empty((1, 2, n), np.float32)
    u = random.random((1, n), dtype=np.float32)
    z = random.standard_normal((1, 2, n), dtype=np.float32)
    kernel.sample(theta[None], u, z, np.zeros(1, np.int64), x)
    return x
