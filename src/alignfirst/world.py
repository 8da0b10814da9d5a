"""What a world must offer. Recipes, store, runner, statistics and report know nothing else about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome


@dataclass(frozen=True)
class Preflight:
    """What is known of a study's inputs before any work. A world whose studies bring files of their own offers

    preflight(config, recipes, out) -> Preflight   raises InputError for what cannot work; stages by name of a recipe,
                                              and the directory of the run, which need not be there
    prepare(config, store) -> None            puts into the store what nodes need beside each other's outputs
    scale(config, stages, first, algorithm)   what the updates of align stages are multiplied with, so that a
                                              recipe costs what the first of the study does
    """

    lines: tuple[str, ...]  # for a person
    warnings: tuple[str, ...]  # what a strict run refuses
    data: Mapping[str, Json]  # the same for programs
    seconds: Mapping[str, float]  # a node of each kind, on one core


@dataclass(frozen=True)
class Drawn:
    """N responses of one model, as an audit takes them. Arrays [N]; log-probabilities in nats, of whole responses.

    `reference` is the model that is audited, `teacher` a model of higher recall. `prompt` tells prompts apart; None
    where there is one. `in_target` is None where no target was named.
    """

    reward: NDArray[np.float64]
    in_target: NDArray[np.bool_] | None
    logp_reference: NDArray[np.float64]
    logp_teacher: NDArray[np.float64]
    prompt: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Answers:
    """One answer a preference pair, [R]: log-probabilities in nats, tokens, and the least likely token and its place.

    `logp_teacher` is NaN where the model is its own teacher.
    """

    logp_reference: NDArray[np.float64]
    logp_teacher: NDArray[np.float64]
    tokens: NDArray[np.float64]
    rarest: NDArray[np.float64]
    rarest_at: NDArray[np.int64]


@dataclass(frozen=True)
class Preferences:
    """R preference pairs under a model and its teacher: where each stands in its file, and its prompt, told apart.

    `entropy` [R] is the surprisal a token of the model's own answers to that prompt, NaN where none was drawn.
    """

    line: NDArray[np.int64]
    prompt: NDArray[np.int64]
    chosen: Answers
    rejected: Answers
    entropy: NDArray[np.float64]


@dataclass(frozen=True)
class AuditDraws:
    """What an audit of one model rests on. `teacher` is None where the model is its own teacher.

    `reference` is None where no reward could judge draws: then `without` says why there is no number, and `pairs` tell
    what preferences tell. `preferred` is None where nothing says what a wanted answer earns.
    """

    reference: Drawn | None
    teacher: Drawn | None
    preferred: NDArray[np.float64] | None  # rewards of examples of what is wanted
    pairs: Preferences | None = None
    without: Literal["reward", "labels"] = "reward"


class World(Protocol):
    """A place where recipes are played.

    `settings` keeps of a study's config what changes a node's output. `run` computes nodes of one kind and one
    `group` together: nothing in it may depend on which nodes share the call. A world may name in `together` the kinds
    of nodes that several processes of one launcher compute with each other.
    """

    name: str
    versions: Mapping[NodeKind, int]

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]: ...

    def group(self, node: Node) -> Hashable: ...

    def batch_size(self, node: Node) -> int:
        """How many nodes like this one make about a second of work."""
        ...

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]: ...

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """Content of exhibits.json: what the report may show of models (mixtures: parameters; text: samples)."""
        ...

    def open(self, artefact: Artefact, load: Load) -> Any:
        """A model's artefact as what a user works with: a mixture, a transformers model."""
        ...


Need = Callable[[NodeKind, Mapping[str, Json], Mapping[str, str]], str]  # kind, settings, inputs -> key of that node


@runtime_checkable
class Supplied(Protocol):
    """A world whose nodes learn from more than the models of their recipe: texts drawn in shards, a model on disk.

    `supplies` names further inputs of a node (role -> key) and asks for them by `need`, which plans each once. Shards
    are nodes, so that they are drawn by all workers at once, stored one by one, and not drawn again.
    """

    def supplies(
        self, kind: NodeKind, config: Any, inputs: Mapping[str, str], need: Need, **context: Json
    ) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Price:
    """What a node costs by formula: tokens through models, floating-point operations, bytes it leaves in the store.

    The three kinds are told apart because machines do them at different speeds: sampling goes token by token.
    """

    sampled: int = 0
    scored: int = 0
    trained: int = 0
    sampling: float = 0.0  # operations
    scoring: float = 0.0
    training: float = 0.0
    stored: int = 0  # bytes

    def __add__(self, other: Price) -> Price:
        return Price(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def flops(self) -> float:
        return self.sampling + self.scoring + self.training


@runtime_checkable
class Priced(Protocol):
    """A world that can tell what a node costs before it is computed, from settings alone."""

    operations_a_second: float  # of one core, roughly

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        """`nodes` holds the node's inputs, and theirs, by key."""
        ...

    def scaled_down(self, config: Any) -> list[str]:
        """What a smaller scale of this study would show, and what not: sentences for a dry run."""
        ...


class AuditedWorld(World, Protocol):
    """A world that also draws for audits: it has a version of the kind `audit`, and studies then audit in it.

    `settings("audit", config, seed=...)` is what decides the draws; the study adds what is planned. It gets
    `given=True` for an algorithm that learns from pairs of a file, which no model of the study drew. A world may offer

    rollouts(config, algorithm, share) -> int  responses that an alignment draws, where its settings are not the counts
    audit_first = True                         alignments wait for their audit, and the run says every verdict
    """

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Draws of the model in one role of the node's inputs and of its teacher, which has the role `sft`.

        The same settings and inputs give the same draws.
        """
        ...
