"""The grammar world: what a study's config means for each node. `work.py` computes them, and torch comes only then."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.plugins import reward_settings
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.world import AuditDraws

AUDIT_SAMPLES = 4_096  # texts of every model
MODEL_KEYS = ("hidden", "layers", "heads", "intermediate")
FIT_KEYS = ("steps", "batch", "learning_rate")


class GrammarWorld:
    """World protocol for small transformers on an exact grammar."""

    name = "grammar"
    versions: Mapping[NodeKind, int] = {"sft": 1, "distil": 1, "align": 2, "measure": 1, "audit": 1}
    seconds_per_node: Mapping[NodeKind, float] = {
        "sft": 25.0,
        "distil": 4.5,
        "align": 4.0,
        "measure": 0.8,
        "audit": 0.3,
    }

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        """What of the config changes the output of a node of this kind; nothing else may stand here."""
        return getattr(self, f"_{kind}_settings")(config, **context)  # type: ignore[no-any-return]

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed, "p_star": truth(config), "model": _keys(config.sft, MODEL_KEYS)} | _fit(config.sft)

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        d = config.distil
        settings = {
            "seed": seed,
            "occurrence": occurrence,
            "p_star": truth(config),
            "model": _keys(d, MODEL_KEYS),
            "loss": d.loss,
            "temperature": d.temperature,
        } | _fit(d)
        if d.loss != "reverse-kl":  # it learns on the student's own text, fresh in every step
            settings["samples"] = d.samples
        if d.loss != "sequence":
            settings["top_k"] = d.top_k
        if rehearsed:
            settings["rehearsal"] = d.rehearsal
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
            "trainer": a.trained_by,
            "p_star": truth(config),
            "reward": oracle(config),
        }
        if method.on_pairs:
            settings["labels"] = {"kind": p.labels, "scale": p.scale, "flip": p.flip}
        else:
            settings |= {"group": a.group_size, "level": a.level, "kl_in": a.kl_in}
        if method.data == "pairs-offline":
            settings["pairs"] = p.pairs
        if method.reuses_batches:
            settings["epochs"] = a.ppo_epochs
        return settings

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        return {"p_star": truth(config), "reward": oracle(config), "samples": config.measure.samples}

    def _audit_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed, "p_star": truth(config), "reward": oracle(config), "samples": AUDIT_SAMPLES}

    def group(self, node: Node) -> Hashable:
        """A training is a task of its own; measurements that share an sft model share its loading.

        Audits of the same models share what is drawn of them.
        """
        if node.kind == "audit":
            return node.kind, *sorted(node.inputs.items())
        return (node.kind, node.inputs["sft"], repr(node.settings)) if node.kind == "measure" else node.key

    def batch_size(self, node: Node) -> int:
        return {"measure": 4, "audit": 1_000}.get(node.kind, 1)

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A training that diverges fails alone, with its reason."""
        from alignfirst.worlds.grammar import work  # imports torch

        return work.run(nodes, load)

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of a model and, unless it is its own teacher, of its teacher."""
        from alignfirst.worlds.grammar.draws import draw  # imports torch

        model, teacher = inputs[role], inputs["sft"]
        return draw(settings, load(model), None if teacher == model else load(teacher))

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """A few texts of every model and its training curves; see docs/exhibits.md for the shape."""
        from alignfirst.worlds.grammar import exhibits

        return exhibits.exhibits(truth(config), oracle(config), models)

    def open(self, artefact: Artefact, load: Load) -> Any:
        """The transformer, in evaluation mode; its tokens are those of `docs/grammar.md`."""
        from alignfirst.lm.models.load import TinyLlama, from_arrays  # imports torch

        return from_arrays(TinyLlama(**artefact.meta["config"]), artefact.arrays)


def truth(config: Any) -> dict[str, Json]:
    """The language of a study: everything that decides p_star, and nothing else."""
    p = config.p_star
    settings = {k: getattr(p, k) for k in ("behaviours", "words", "own", "successors", "smoothing", "length", "zipf")}
    return settings | {"language": p.language, "target_weights": [p.target_weight, *p.further_prompts]}


def oracle(config: Any) -> dict[str, Json]:
    r = config.reward
    named = reward_settings(r.kind)
    if ":" in named["kind"]:
        return {**named, "timeout": r.timeout}
    return {"kind": r.kind} | ({} if r.kind == "posterior" else {"temperature": r.temperature})


def _keys(section: Any, names: Sequence[str]) -> dict[str, Json]:
    return {name: getattr(section, name) for name in names}


def _fit(section: Any) -> dict[str, Json]:
    return _keys(section, FIT_KEYS)


WORLD = GrammarWorld()
