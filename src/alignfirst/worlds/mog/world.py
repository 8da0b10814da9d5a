"""The mixture world: what a study's config means for each node, and batches of nodes for the kernel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.world import AuditDraws
from alignfirst.worlds.mog.mixture import Mixture, p_star, target_radius

AUDIT_SAMPLES = 4_096  # of every model; a mixture's draws cost nothing
FIT_KEYS = ("components", "samples", "restarts", "iterations", "tolerance", "floor")


class MixtureWorld:
    """World protocol for mixtures of Gaussians."""

    name = "mog"
    versions: Mapping[NodeKind, int] = {"sft": 1, "distil": 1, "align": 1, "measure": 1, "predict": 1, "audit": 1}
    seconds_per_node: Mapping[NodeKind, float] = {
        "sft": 0.01,
        "distil": 0.003,
        "align": 0.005,
        "measure": 0.005,
        "predict": 0.02,
        "audit": 0.001,
    }

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        """What of the config changes the output of a node of this kind; nothing else may stand here."""
        return getattr(self, f"_{kind}_settings")(config, **context)  # type: ignore[no-any-return]

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed, "p_star": _truth(config), "fit": _fit(config.sft)}

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        settings = {"seed": seed, "occurrence": occurrence, "fit": _fit(config.distil)}
        settings["selectivity"] = config.distil.selectivity
        if rehearsed:
            settings |= {"rehearsal": config.distil.rehearsal, "p_star": _truth(config, targets=True)}
        return settings

    def _align_settings(
        self, config: Any, *, seed: int, algorithm: str, beta: float | None, updates: float, occurrence: int
    ) -> dict[str, Json]:
        method, a, p = ALGORITHMS[algorithm], config.align, config.preferences
        settings = {
            "seed": seed,
            "occurrence": occurrence,
            "algorithm": algorithm,
            "beta": beta,
            "updates": max(1, round(updates * a.updates)),
            "samples": a.samples,
            "learning_rate": a.learning_rate,
            "min_sd": a.min_sd,
            "p_star": _truth(config, targets=True),
            "oracle": _oracle(config),
        }
        if method.on_pairs:
            settings["labels"] = {"kind": p.labels, "scale": p.scale, "flip": p.flip}
        else:
            settings["group"] = a.group_size
        if method.data == "pairs-offline":
            settings["pairs"] = p.pairs
        if method.reuses_batches:
            settings["epochs"] = a.ppo_epochs
        return settings

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        hard = config.preferences.labels == "hard" and algorithm is not None and ALGORITHMS[algorithm].on_pairs
        return {
            "p_star": _truth(config, targets=True),
            "oracle": _oracle(config),
            "beta": None if hard else beta,  # argmax labels: the preference objective has no finite optimum
        }

    def _predict_settings(self, config: Any, *, stages: Json, beta: float | None) -> dict[str, Json]:
        d = config.distil
        return {
            "p_star": _truth(config, targets=True),
            "oracle": _oracle(config),
            "beta": beta,
            "stages": stages,
            "distil": {k: getattr(d, k) for k in ("selectivity", "components", "rehearsal", "floor")},
        }

    def _audit_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        truth = _truth(config, targets=True)
        return {"seed": seed, "p_star": truth, "oracle": _oracle(config), "samples": AUDIT_SAMPLES}

    def group(self, node: Node) -> Hashable:
        """Nodes that one call of `run` can take together: all but seed, beta and inputs agree."""
        if node.kind == "measure":
            return node.kind, node.inputs["sft"], repr(node.settings["p_star"]), repr(node.settings["oracle"])
        if node.kind == "audit":
            return node.kind
        return node.kind, repr({k: v for k, v in sorted(node.settings.items()) if k not in ("seed", "beta")})

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
        from alignfirst.worlds.mog.draws import draw

        model, teacher = inputs[role], inputs["sft"]
        theta = load(model).arrays["theta"]
        return draw(settings, theta, None if teacher == model else load(teacher).arrays["theta"])

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


def _fit(section: Any) -> dict[str, Json]:
    return {k: getattr(section, k) for k in FIT_KEYS}


WORLD = MixtureWorld()
