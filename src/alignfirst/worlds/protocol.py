"""What a world must offer. Recipes, store, runner, statistics and report know nothing else about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

NodeKind = Literal["sft", "distil", "align", "measure", "predict"]
Json = Any  # what json.dumps takes: settings and metadata are plain data


@dataclass(frozen=True)
class Node:
    """One unit of work with one output. Its key digests everything that changes the output, nothing else."""

    kind: NodeKind
    settings: Mapping[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> key of another node
    version: int = 1

    @cached_property
    def key(self) -> str:
        identity = [self.kind, self.version, self.settings, self.inputs]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Artefact:
    """The output of a node: arrays, and plain data about them."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    meta: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A node that could not be computed, with the reason a person needs."""

    reason: str


Outcome = Artefact | Failure
Load = Callable[[str], Artefact]


class World(Protocol):
    """A place where recipes are played.

    `settings` keeps of a study's config what changes a node's output. `run` computes nodes of one kind and one
    `group` together: nothing in it may depend on which nodes share the call.
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


def as_float(value: float | np.floating[Any] | None) -> float | None:
    """A JSON-safe number: NaN and infinities become null, for JSON has no such numbers."""
    if value is None or not np.isfinite(value):
        return None
    return float(value)
