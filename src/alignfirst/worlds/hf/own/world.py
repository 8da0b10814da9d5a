"""The world of own models: what a study's config means for each node. `work.py` computes them, and torch comes then."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignfirst.store import Store
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.hf.own.facts import facts
from alignfirst.worlds.protocol import Artefact, Json, Load, Node, NodeKind, Outcome, Preflight

FIT_KEYS = ("steps", "batch", "chunk", "learning_rate")


class OwnWorld:
    """World protocol for a user's own models and data. Its artefacts are large: records are made of their metadata."""

    name = "hf"
    versions: Mapping[NodeKind, int] = {"sft": 1, "distil": 1, "align": 1, "measure": 1}
    together = frozenset({"sft", "distil", "align"})

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        """What of the config changes the output of a node of this kind; nothing else may stand here."""
        own: dict[str, Json] = getattr(self, f"_{kind}_settings")(config, **context)
        return {"tokenizer": facts(config).tokenizer_key, "precision": config.precision} | own

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        settings: dict[str, Json] = {"teacher": facts(config).teacher, "data": facts(config).data}
        if config.sft.steps:
            settings |= {"seed": seed, **_keys(config.sft, FIT_KEYS)} | _lora(config, "sft")
        return settings

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        d = config.distil
        settings = {
            "seed": seed,
            "occurrence": occurrence,
            "teacher": facts(config).teacher,
            "student": facts(config).student,
            "data": facts(config).data,
            **_keys(d, (*FIT_KEYS, "loss", "temperature", "samples", "prompts", "new_tokens")),
        }
        if d.loss != "sequence":
            settings["top_k"] = d.top_k
        if rehearsed:
            settings["rehearsal"] = d.rehearsal
        return settings | _lora(config, "distil")

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
            "data": facts(config).data,
            "trainer": a.trained_by,
            **_keys(a, ("samples", "chunk", "learning_rate")),
        }
        given = method.data == "pairs-offline" and config.data.pairs is not None
        if not given:
            settings |= {"reward": facts(config).reward, "new_tokens": a.new_tokens}
            if method.on_pairs:
                settings["labels"] = {"kind": p.labels, "scale": p.scale, "flip": p.flip}
            else:
                settings |= {"group": a.group_size, "level": a.level, "kl_in": a.kl_in}
            if method.data == "pairs-offline":
                settings["pairs"] = p.pairs
            if method.reuses_batches:
                settings["epochs"] = a.ppo_epochs
        return settings | _lora(config, "align")

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        m = config.measure
        settings = {"data": facts(config).data, **_keys(m, ("pairs", "prompts", "samples", "new_tokens"))}
        if config.reward.given:
            settings["reward"] = facts(config).reward
        if m.tasks:
            settings |= {"tasks": facts(config).tasks, "task_limit": m.task_limit}
        return settings

    def group(self, node: Node) -> Hashable:
        """A training is a task of its own; measurements that share an sft model share its answers."""
        return (node.kind, node.inputs["sft"], repr(node.settings)) if node.kind == "measure" else node.key

    def batch_size(self, node: Node) -> int:
        return 2 if node.kind == "measure" else 1

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A training that diverges fails alone, with its reason."""
        from alignfirst.worlds.hf.own import work  # imports torch

        return work.run(nodes, load)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """A few answers of every model and its training curves; see docs/own-models.md for the shape."""
        from alignfirst.worlds.hf.own import exhibits

        return exhibits.exhibits(models)

    def open(self, artefact: Artefact, load: Load) -> Any:
        """The transformers model in evaluation mode, adapters merged."""
        from alignfirst.worlds.hf.own import models  # imports torch

        return models.whole(artefact, load).eval()

    def export(
        self, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: Store, folder: Path,
        about: Mapping[str, str], adapter: bool = False,
    ) -> None:  # fmt: skip
        """Write the model of the last of a recipe's `rows` as a Hugging Face folder, with its card."""
        from alignfirst.worlds.hf.own import export

        export.export(config, rows, store, folder, about, adapter)

    # -- what a study brings with it --------------------------------------------------------------------------------

    def preflight(self, config: Any, recipes: Mapping[str, Sequence[Any]], out: Path) -> Preflight:
        """What is known of models and data before any work. Raises InputError for what cannot work."""
        from alignfirst.worlds.hf.own import preflight

        return preflight.preflight(config, recipes, out)

    def prepare(self, config: Any, store: Store) -> None:
        """The tokenizer, which travels with the models, and the index of the data."""
        known = facts(config)
        store.put_many([(known.tokenizer_key, known.tokenizer), (known.index_key, known.index)])

    def scale(self, config: Any, recipe: Sequence[Any], first: Sequence[Any], algorithm: str | None) -> float:
        """What the updates of a recipe's align stages are multiplied with, so that its cost is that of the first."""
        if config.budget.match == "updates":
            return 1.0
        from alignfirst.worlds.hf.own import cost

        return cost.scale(config, recipe, first, algorithm)


def _keys(section: Any, names: Sequence[str]) -> dict[str, Json]:
    return {name: getattr(section, name) for name in names}


def _lora(config: Any, stage: str) -> dict[str, Json]:
    lora = config.lora
    return {"lora": {"rank": lora.rank, "alpha": lora.alpha}} if lora.rank and stage in lora.stages else {}


WORLD = OwnWorld()
