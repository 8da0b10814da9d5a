"""The grammar world: what a study's config means for each node. `work.py` computes them, and torch comes only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.costs.price import Price
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.plugins import reward_settings
from alignfirst.world import World
from alignfirst.worlds.grammar import cost
from alignfirst.worlds.node_settings import align_settings, drawing_filter, keys

AUDIT_SAMPLES = 4_096  # texts of every model
MODEL_KEYS = ("hidden", "layers", "heads", "intermediate")
FIT_KEYS = ("steps", "batch", "learning_rate")


class GrammarWorld(World):
    """Small transformers on an exact grammar."""

    name = "grammar"
    text = True
    batch_sizes: Mapping[NodeKind, int] = {"measure": 4, "audit": 1_000}
    versions: Mapping[NodeKind, int] = {"sft": 2, "distil": 2, "align": 3, "measure": 1, "audit": 1, "draw": 1}
    operations_a_second = 5e10  # in float32, by small models: measured with the preset grammar

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed, "p_star": truth(config), "model": keys(config.sft, MODEL_KEYS)} | _fit(config.sft)

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        d = config.distil
        settings = {
            "seed": seed,
            "occurrence": occurrence,
            "p_star": truth(config),
            "model": keys(d, MODEL_KEYS),
            "loss": d.loss,
            "temperature": d.temperature,
        } | _fit(d)
        if d.loss != "reverse-kl":  # it learns on the student's own text, fresh in every step
            settings["samples"] = d.samples
            settings |= drawing_filter(d)
        if d.loss != "sequence":
            settings["top_k"] = d.top_k
        if rehearsed:
            settings["rehearsal"] = d.rehearsal
        return settings

    def _align_settings(self, config: Any, **context: Any) -> dict[str, Json]:
        return align_settings(self, config, **context) | {"p_star": truth(config), "reward": oracle(config)}

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        settings = {"p_star": truth(config), "reward": oracle(config), "samples": config.measure.samples}
        return settings | drawing_filter(config.measure)

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        return {"seed": seed, "p_star": truth(config), "reward": oracle(config), "samples": AUDIT_SAMPLES}

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A training that diverges fails alone, with its reason."""
        from alignfirst.worlds.grammar import work  # imports torch

        return work.RUN[nodes[0].kind](nodes, load)

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of a model and, unless it is its own teacher, of its teacher."""
        from alignfirst.worlds.grammar.draws import audit_draws  # imports torch

        return audit_draws(settings, inputs, role, load)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """A few texts of every model and its training curves; see docs/exhibits.md for the shape."""
        from alignfirst.worlds.grammar import exhibits

        return exhibits.exhibits(truth(config), oracle(config), models)

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        """Tokens and operations, by formula."""
        return cost.price(node, nodes)

    def open(self, artefact: Artefact, load: Load) -> Any:
        """The transformer, in evaluation mode; its tokens are those of `docs/grammar.md`."""
        from alignfirst.lm.models.load import TinyLlama, from_arrays  # imports torch

        return from_arrays(TinyLlama(**artefact.meta["config"]), artefact.arrays)


def truth(config: Any) -> dict[str, Json]:
    """The language of a study: everything that decides p_star, and nothing else."""
    p = config.p_star
    names = ("behaviours", "words", "own", "successors", "smoothing", "length", "zipf")
    return keys(p, names) | {"language": p.language, "target_weights": [p.target_weight, *p.further_prompts]}


def oracle(config: Any) -> dict[str, Json]:
    r = config.reward
    named = reward_settings(r.kind)
    if ":" in named["kind"]:
        return {**named, "timeout": r.timeout}
    return {"kind": r.kind} | ({} if r.kind == "posterior" else {"temperature": r.temperature})


def _fit(section: Any) -> dict[str, Json]:
    return keys(section, FIT_KEYS)


WORLD = GrammarWorld()
