"""The mixture world: what a study's config means for each node, and batches of nodes for the kernel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.costs.price import Price
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.world import World
from alignfirst.worlds.mog import cost
from alignfirst.worlds.mog.mixture import Mixture, p_star, target_radius
from alignfirst.worlds.node_settings import align_settings, keys

AUDIT_SAMPLES = 4_096  # of every model; a mixture's draws cost nothing
FIT_KEYS = ("components", "samples", "restarts", "iterations", "tolerance", "floor")


class MixtureWorld(World):
    """Mixtures of Gaussians."""

    name = "mog"
    versions: Mapping[NodeKind, int] = {
        "sft": 1, "distil": 1, "align": 1, "measure": 1, "predict": 1, "audit": 1, "draw": 1,
    }  # fmt: skip
    unit = "points"
    operations_a_second = 2e10  # roughly; many nodes share a call

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed, "p_star": _truth(config), "fit": keys(config.sft, FIT_KEYS)}

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        settings = {"seed": seed, "occurrence": occurrence, "fit": keys(config.distil, FIT_KEYS)}
        settings["selectivity"] = config.distil.selectivity
        if rehearsed:
            settings |= {"rehearsal": config.distil.rehearsal, "p_star": _truth(config, targets=True)}
        return settings

    def _align_settings(self, config: Any, **context: Any) -> dict[str, Json]:
        own = {"min_sd": config.align.min_sd, "p_star": _truth(config, targets=True), "oracle": _oracle(config)}
        return align_settings(self, config, **context) | own

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        method, hard = ALGORITHMS.get(algorithm or ""), config.preferences.labels == "hard"
        no_optimum = method is not None and (not method.uses_reference or (hard and method.on_pairs))
        return {
            "p_star": _truth(config, targets=True),
            "oracle": _oracle(config),
            "beta": None if no_optimum else beta,  # without a reference, or on argmax labels, there is no finite one
        }

    def _predict_settings(self, config: Any, *, stages: Json, beta: float | None) -> dict[str, Json]:
        return {
            "p_star": _truth(config, targets=True),
            "oracle": _oracle(config),
            "beta": beta,
            "stages": stages,
            "distil": keys(config.distil, ("selectivity", "components", "rehearsal", "floor")),
        }

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        truth = _truth(config, targets=True)
        return {"seed": seed, "p_star": truth, "oracle": _oracle(config), "samples": AUDIT_SAMPLES}

    def group(self, node: Node) -> Hashable:
        """Nodes that one call of `run` can take together: all but seed, beta, plan and inputs agree."""
        alike = repr({k: v for k, v in sorted(node.settings.items()) if k not in ("seed", "beta", "plan")})
        return node.kind, alike, node.inputs["sft"] if node.kind == "measure" else None

    def batch_size(self, node: Node) -> int:
        """About a second of work, and at most a few megabytes of responsibilities."""
        s = node.settings
        if node.kind == "align":
            return _between(1, 70 * 600 / s["updates"] * 256 / s["samples"], 70)
        if node.kind in ("sft", "distil"):
            return _between(1, 70 * 4000 / s["fit"]["samples"], 70)
        return {"measure": 160, "audit": 420}.get(node.kind, 20)

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A run that ends in NaN fails alone."""
        from alignfirst.worlds.mog.work import RUN

        return RUN[nodes[0].kind](nodes, load)

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of a model and, unless it is its own teacher, of its teacher."""
        from alignfirst.worlds.mog.draws import audit_draws

        return audit_draws(settings, inputs, role, load)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """Parameters of p_star and of the given models: the page draws the densities itself."""
        truth = _truth(config, targets=True)
        return {
            "kind": "mixture",
            "p_star": p_star(truth).plain(),
            "targets": truth["targets"],
            "radius": target_radius(truth),
            "half_width": 1.6,
            "models": {key: Mixture.of_theta(a.arrays["theta"]).plain() for key, a in models.items()},
        }

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        """Points and operations, by formula."""
        return cost.price(node, nodes)

    def open(self, artefact: Artefact, load: Load) -> Mixture:
        return Mixture.of_theta(artefact.arrays["theta"])


def _between(low: int, value: float, high: int) -> int:
    return max(low, min(int(value), high))


def _truth(config: Any, targets: bool = False) -> dict[str, Json]:
    truth: dict[str, Json] = {"weights": [float(w) for w in config.p_star.weights], "variance": config.p_star.variance}
    if targets:
        truth["targets"] = [[float(v) for v in point] for point in config.p_star.targets]
    return truth


def _oracle(config: Any) -> dict[str, Json]:
    return {
        "targets": [[float(v) for v in point] for point in config.p_star.targets],
        "width": config.reward.width,
        "annotators": [
            {"targets": [[float(v) for v in point] for point in a.targets], "weight": float(a.weight)}
            for a in config.preferences.annotators
        ],
    }


WORLD = MixtureWorld()
