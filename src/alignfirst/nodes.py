"""Units of work and what comes of them: what the store keeps, what worlds compute and what studies plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import InputError

# sft, distil, align are stages of recipes; source and target are what the stages of some worlds learn from; draw,
# sample and score are what audits rest on
NodeKind = Literal[
    "sft", "distil", "align", "measure", "predict", "audit", "source", "target", "draw", "sample", "score"
]
Json = Any  # what json.dumps takes: settings and metadata are plain data


@dataclass(frozen=True)
class Node:
    """One unit of work with one output. Its key digests everything that changes the output, nothing else."""

    kind: NodeKind
    settings: Mapping[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> key of another node
    version: int = 1

    @property
    def label(self) -> str:
        """What nodes of a kind are told apart by: the algorithm, or what texts are drawn for."""
        return str(self.settings.get("algorithm") or self.settings.get("purpose") or "")

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
    """A node that could not be computed, with the reason a person needs.

    `refused`: an input cannot be used, which no other machine or moment would change.
    """

    reason: str
    refused: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        return cls(str(error), isinstance(error, InputError))


Outcome = Artefact | Failure
Load = Callable[[str], Artefact]


def as_float(value: float | np.floating[Any] | None) -> float | None:
    """A JSON-safe number: NaN and infinities become null, for JSON has no such numbers."""
    if value is None or not np.isfinite(value):
        return None
    return float(value)


def rounded(value: float | None) -> float | None:
    """A JSON-safe number of six digits, for curves and texts that people look at; None for what is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")
