"""What a world must offer and what it may. Recipes, runner, statistics and report know nothing else about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst.costs.price import Price
from alignfirst.errors import InputError
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome

if TYPE_CHECKING:
    from alignfirst.auditing.audit_nodes import AuditDraws
    from alignfirst.store import Store

Need = Callable[[NodeKind, Mapping[str, Json], Mapping[str, str]], str]  # kind, settings, inputs -> key of that node


@dataclass(frozen=True)
class Preflight:
    """What is known of a study's inputs before any work."""

    lines: tuple[str, ...]  # for a person
    warnings: tuple[str, ...]  # what a strict run refuses
    data: Mapping[str, Json]  # the same for programs


class World(ABC):
    """A place where recipes are played. What is abstract every world has; the rest it overrides where it can more.

    Its nodes are of the kinds of `versions`. A study asks for `settings` and `supplies` of each, computes groups of
    them by `run`, keeps the artefacts, and shows what `exhibits` makes of them.
    """

    batch_sizes: Mapping[NodeKind, int] = {}  # see `batch_size`
    together: frozenset[NodeKind] = frozenset()  # kinds that processes of one launcher compute with each other
    text = False  # responses are sequences of tokens
    tracked = False  # trackers such as wandb can watch its trainings
    audit_first = False  # alignments wait for their audit, and the run says every verdict
    exhibits_arrays = True  # `exhibits` needs the arrays of models, not metadata alone
    unit = "tokens"  # of what passes through models, as prices count it
    gpus: Sequence[str] = ()  # on which its work can run, keys of `costs.hardware.GPUS`
    operations_a_second = 4e10  # of one core, roughly
    overhead = 0.0  # seconds of a node beside its operations, roughly

    @property
    @abstractmethod
    def name(self) -> str:
        """What `world:` says in a config."""

    @property
    @abstractmethod
    def versions(self) -> Mapping[NodeKind, int]:
        """Number of each kind of node that there is. It is raised when outputs change for the same settings."""

    def computes(self, kind: NodeKind) -> bool:
        """Whether the world has nodes of this kind."""
        return kind in self.versions

    # -- nodes ----------------------------------------------------------------------------------------------------

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        """What of a study's config changes the output of a node of this kind, as plain data; nothing else.

        `context` is what the plan knows beside the config:

        sft      seed
        distil   seed, rehearsed, occurrence (number of such stages before it in the recipe)
        align    seed, algorithm, beta (None: no reference), updates (share of the config's), occurrence
        measure  algorithm, beta (of the stage before, None where it was no alignment)
        predict  stages (of the recipe, with their reference), beta
        audit    seed, algorithm, beta, share (of the config's updates): `drawing_settings`, `audit_plan`, its rules

        By default those of the world's method `_KIND_settings`.
        """
        settings: dict[str, Json] = getattr(self, f"_{kind}_settings")(config, **context)
        return settings

    def count(self, config: Any, full: float, least: int = 1) -> int:
        """A count of the config as this study has it; a world whose studies have a scale shrinks it."""
        return max(least, round(full))

    def supplies(
        self, kind: NodeKind, config: Any, inputs: Mapping[str, str], need: Need, **context: Json
    ) -> Mapping[str, str]:
        """Inputs (role -> key) of a node beside the models of its recipe: texts drawn in shards, a model on disk.

        Each is asked for by `need`, which plans it once. Shards are nodes, so that they are drawn by all workers at
        once, stored one by one, and not drawn again. None by default.
        """
        return {}

    def group(self, node: Node) -> Hashable:
        """Nodes of one kind and group may be computed by one call of `run`.

        By default a node that is a task of its own (see `batch_size`) is alone; others go with those of the same
        inputs but for their own `model`, for they share what is loaded or drawn of them.
        """
        if self.batch_size(node) == 1:
            return node.key
        return node.kind, *sorted((role, key) for role, key in node.inputs.items() if role != "model")

    def batch_size(self, node: Node) -> int:
        """How many nodes like this one make about a second of work: 1, or what `batch_sizes` says, by default."""
        return self.batch_sizes.get(node.kind, 1)

    @abstractmethod
    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group, in their order: nothing may depend on which nodes share the call.

        `load` gives the artefact of an input. A node that cannot be computed is a Failure with its reason; after an
        exception its halves are tried apart.
        """

    @abstractmethod
    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """Content of exhibits.json: what the report may show of models (mixtures: parameters; text: samples)."""

    @abstractmethod
    def open(self, artefact: Artefact, load: Load) -> Any:
        """A model's artefact as what a user works with: a mixture, a transformers model."""

    def export(
        self, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: Store, folder: Path,
        about: Mapping[str, str], adapter: bool = False,
    ) -> None:  # fmt: skip
        """Write the model of the last of a recipe's `rows` as a Hugging Face folder, with its card.

        `config` is the resolved config, `about` what the card says of the run. With `adapter` a LoRA adapter stands
        alone. Raises InputError, by default for every model: this world's are no such.
        """
        raise InputError("models of world hf are exported", f"world {self.name}", "Run.model opens those of this run.")

    # -- what a study brings with it ------------------------------------------------------------------------------

    def preflight(self, config: Any, recipes: Mapping[str, Sequence[Any]], out: Path) -> Preflight | None:
        """What is known of a study's own files before any work; None, the default, where studies bring none.

        `recipes`: stages by name of a recipe; `out`: the directory of the run, which need not be there. Raises
        InputError for what cannot work.
        """
        return None

    def prepare(self, config: Any, store: Store) -> None:  # noqa: B027 (optional)
        """Put into the store what nodes need beside each other's outputs; nothing by default."""

    def scale(self, config: Any, recipe: Sequence[Any], first: Sequence[Any], algorithm: str | None) -> float:
        """What the updates of a recipe's align stages are multiplied with, so that it costs what the first recipe of
        the study does (stages of both are given); 1 by default."""
        return 1.0

    @abstractmethod
    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        """What a node costs before it is computed, from settings alone.

        `nodes` holds the node's inputs, and theirs, by key. What nodes of a group share counts for each of them.
        """

    def seconds(self, price: Price) -> float:
        """Of one core, for a node of that price."""
        return self.overhead + price.flops / self.operations_a_second

    def scaled_down(self, config: Any) -> list[str]:
        """What a smaller scale of this study would show, and what not: sentences for a dry run."""
        return []

    # -- audits ---------------------------------------------------------------------------------------------------

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of the model in one role of an audit's inputs and of its teacher, which has the role `sft`.

        `settings` are `drawing_settings`: the same settings and inputs give the same draws. A world with nodes of kind
        `audit` has both methods, and runs these nodes by `audit_nodes.run_audit`.
        """
        raise NotImplementedError(f"world {self.name} draws nothing for audits")

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        """What of a config decides the draws of an audit; `algorithm` says what the plan learns from."""
        raise NotImplementedError(f"world {self.name} draws nothing for audits")

    def _audit_settings(self, config: Any, *, seed: int, algorithm: str, beta: float, share: float) -> dict[str, Json]:
        from alignfirst.auditing.audit_nodes import rules

        plan = self.audit_plan(config, algorithm, beta, self.rollouts(config, algorithm, share))
        return {**self.drawing_settings(config, seed=seed, algorithm=algorithm), "plan": plan, "rules": rules()}

    def audit_plan(self, config: Any, algorithm: str, beta: float, rollouts: int) -> dict[str, Json] | None:
        """What the audit's `Plan` takes: how labels are made matters to algorithms that learn from pairs alone.

        None where no number is predicted whatever is planned.
        """
        from alignfirst.theory.objectives import ALGORITHMS

        plan: dict[str, Json] = {"algorithm": algorithm, "beta": beta, "rollouts": rollouts}
        if self.text:
            plan["text"] = True
        if ALGORITHMS[algorithm].on_pairs:
            plan |= {name: config.value(f"preferences.{name}") for name in ("labels", "flip", "scale")}
        return plan

    def rollouts(self, config: Any, algorithm: str, share: float = 1.0) -> int:
        """Responses that an alignment draws in all, with a share of its updates (offline pairs: both of each).

        By default the counts that the config names.
        """
        from alignfirst.theory.objectives import ALGORITHMS

        method = ALGORITHMS[algorithm]
        if method.data == "pairs-offline":
            return 2 * self.count(config, config.value("preferences.pairs"))
        updates = self.count(config, share * config.value("align.updates"), 1)
        if method.reuses_batches:
            updates = -(-updates // int(config.value("align.ppo_epochs")))
        return int(updates * config.value("align.samples"))
