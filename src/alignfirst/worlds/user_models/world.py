"""The world of own models: what a study's config means for each node. `work.py` computes them, and torch comes then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.costs.hardware import GPUS
from alignfirst.costs.price import Price
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.store import Store
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.world import Need, Preflight, World
from alignfirst.worlds.node_settings import align_settings, drawing_filter, keys
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs

FIT_KEYS = ("steps", "batch", "chunk", "learning_rate")


class UserModelsWorld(World):
    """A user's own models and data. Its artefacts are large: records are made of their metadata."""

    name = "hf"
    text = True
    batch_sizes: Mapping[NodeKind, int] = {"measure": 2, "audit": 1_000, "score": 4}
    versions: Mapping[NodeKind, int] = {
        "sft": 2, "distil": 2, "align": 2, "measure": 3, "draw": 2, "audit": 1, "sample": 2, "score": 1,
    }  # fmt: skip
    together = frozenset({"sft", "distil", "align"})
    exhibits_arrays = False  # metadata is enough
    tracked = True
    gpus = tuple(GPUS)
    overhead = 1.0
    audit_first = True  # a training here takes long enough to be told before

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        """What of the config changes the output of a node of this kind; nothing else may stand here."""
        common = {"tokenizer": resolve_inputs(config).tokenizer_key, "precision": config.precision}
        return common | super().settings(kind, config, **context)

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        settings: dict[str, Json] = {"teacher": resolve_inputs(config).teacher, "data": resolve_inputs(config).data}
        if config.sft.steps:
            settings |= {"seed": seed, **keys(config.sft, FIT_KEYS)} | _lora(config, "sft")
        return settings

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        d = config.distil
        settings = {
            "seed": seed,
            "occurrence": occurrence,
            "teacher": resolve_inputs(config).teacher,
            "student": resolve_inputs(config).student,
            "data": resolve_inputs(config).data,
            **keys(d, (*FIT_KEYS, "loss", "temperature", "samples", "prompts", "new_tokens")),
        }
        if d.loss != "reverse-kl":
            settings |= drawing_filter(d)
        if d.loss != "sequence":
            settings["top_k"] = d.top_k
        if rehearsed:
            settings["rehearsal"] = d.rehearsal
        return settings | _lora(config, "distil")

    def _align_settings(self, config: Any, *, algorithm: str, **context: Any) -> dict[str, Json]:
        given = _given(config, algorithm)
        settings = align_settings(self, config, algorithm=algorithm, given_pairs=given, **context)
        settings |= {"data": resolve_inputs(config).data, "chunk": config.align.chunk}
        if not given:
            settings |= {"reward": resolve_inputs(config).reward, "new_tokens": config.align.new_tokens}
        return settings | _lora(config, "align")

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        m = config.measure
        settings = {"data": resolve_inputs(config).data, **keys(m, ("pairs", "prompts", "samples", "new_tokens"))}
        settings |= drawing_filter(m)
        if config.reward.given:
            settings["reward"] = resolve_inputs(config).reward
        if m.tasks:
            settings |= {"tasks": resolve_inputs(config).tasks, "task_limit": m.task_limit}
        if config.audit.target is not None:
            settings["target"] = config.audit.target
        return settings

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        """No seed: draws are the same for all, so that seeds of one model share its audit."""
        given = _given(config, algorithm)
        return {"given": given, "rewarded": config.reward.given} | keys(config.audit, ("target", "wanted"))

    def audit_plan(self, config: Any, algorithm: str, beta: float, rollouts: int) -> dict[str, Json] | None:
        """None on given pairs: one audit then serves all betas and algorithms."""
        given = _given(config, algorithm)
        return None if given else super().audit_plan(config, algorithm, beta, rollouts)

    def _draw_settings(self, config: Any, *, given: bool) -> dict[str, Json]:
        a = config.audit
        settings: dict[str, Json] = {"data": resolve_inputs(config).data}
        if config.data.pairs is not None:
            settings["pairs"] = a.pairs
        if config.reward.given and not given:
            settings |= {"reward": resolve_inputs(config).reward, **keys(a, ("prompts", "samples"))}
            settings["new_tokens"] = config.align.new_tokens
        return settings

    def supplies(
        self, kind: NodeKind, config: Any, inputs: Mapping[str, str], need: Need, **context: Json
    ) -> Mapping[str, str]:
        """Draws of every model that an audit is about, see `draws.py`; nothing else needs more than its models."""
        if kind != "audit":
            return {}
        given = _given(config, context["algorithm"])
        settings, sft = self.settings("draw", config, given=given), inputs["sft"]
        found = {"drawn-sft": need("draw", settings, {"model": sft})}
        for role in ("reference",) if given else ("reference", "initial", "pairs"):
            if role in inputs:
                beside = {"sft": sft, "teacher": found["drawn-sft"]} if "reward" in settings else {}
                model = {"model": inputs[role]}
                found[f"drawn-{role}"] = (
                    found["drawn-sft"] if inputs[role] == sft else need("draw", settings, model | beside)
                )
        return found

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of a model and, unless it is its own teacher, of the sft model."""
        from alignfirst.worlds.user_models.draws import audit_draws  # imports torch

        return audit_draws(settings, inputs, role, load)

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A training that diverges fails alone, with its reason."""
        from alignfirst.worlds.user_models import work  # imports torch

        return work.RUN[nodes[0].kind](nodes, load)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """A few answers of every model and its training curves; see docs/exhibits.md for the shape."""
        from alignfirst.worlds.user_models import exhibits

        return exhibits.exhibits(models)

    def open(self, artefact: Artefact, load: Load) -> Any:
        """The transformers model in evaluation mode, adapters merged."""
        from alignfirst.worlds.user_models import models  # imports torch

        return models.whole(artefact, load).eval()

    def export(
        self, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: Store, folder: Path,
        about: Mapping[str, str], adapter: bool = False,
    ) -> None:  # fmt: skip
        """Write the model of the last of a recipe's `rows` as a Hugging Face folder, with its card."""
        from alignfirst.worlds.user_models import model_folder

        model_folder.export(config, rows, store, folder, about, adapter)

    # -- what a study brings with it --------------------------------------------------------------------------------

    def preflight(self, config: Any, recipes: Mapping[str, Sequence[Any]], out: Path) -> Preflight:
        """What is known of models and data before any work. Raises InputError for what cannot work."""
        from alignfirst.worlds.user_models import preflight

        return preflight.preflight(self.settings, config, recipes, out)

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        """From the lengths of the training rows and the sizes of the models."""
        from alignfirst.worlds.user_models import cost  # imports torch

        return cost.price(node, nodes)

    def seconds(self, price: Price) -> float:
        """By the speed of this machine."""
        from alignfirst.lm.text.device import core_speed

        return self.overhead + price.flops / core_speed()

    def prepare(self, config: Any, store: Store) -> None:
        """The tokenizer, which travels with the models, and the index of the data."""
        known = resolve_inputs(config)
        store.put_many([(known.tokenizer_key, known.tokenizer), (known.index_key, known.index)])

    def scale(self, config: Any, recipe: Sequence[Any], first: Sequence[Any], algorithm: str | None) -> float:
        """What the updates of a recipe's align stages are multiplied with, so that its cost is that of the first."""
        if config.budget.match == "updates":
            return 1.0
        from alignfirst.worlds.user_models import cost

        resolve_inputs(config).index  # noqa: B018 (read here, where it was not before: prices go by its lengths)
        return cost.scale(self.settings, config, recipe, first, algorithm)


def _given(config: Any, algorithm: str | None) -> bool:
    """Whether it learns from the pairs of the user's file."""
    return config.data.pairs is not None and algorithm is not None and ALGORITHMS[algorithm].data == "pairs-offline"


def _lora(config: Any, stage: str) -> dict[str, Json]:
    lora = config.lora
    return {"lora": {"rank": lora.rank, "alpha": lora.alpha}} if lora.rank and stage in lora.stages else {}


WORLD = UserModelsWorld()
