"""How nodes of language-model worlds train, and what a trained model leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import StageFailure
from alignfirst.lm.align.trainer import align
from alignfirst.lm.distil.distillation import DistilSettings
from alignfirst.lm.io import numpy_api
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.counters import Log
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.result import TrainingResult
from alignfirst.nodes import Artefact, Json, Node, rounded

# As in the paper's chain: warm-up 1 %, then stable, the last 20 % a linear decay.
WARMUP, DECAY = 0.01, 0.2


def fit_schedule(s: Mapping[str, Any]) -> OptimSettings:
    """Of fits from scratch; an alignment has a constant rate."""
    return OptimSettings(s["learning_rate"], warmup=WARMUP, decay=DECAY)


def distil_settings(s: Mapping[str, Any], optim: OptimSettings) -> DistilSettings:
    """Settings of a distillation from those of its node."""
    return DistilSettings(
        method=s["loss"],
        optim=optim,
        temperature=s["temperature"],
        filter=s.get("filter"),
        samples=s.get("samples", s["batch"]),
        updates=s["steps"],
        batch=s["batch"],
        top_k=s.get("top_k"),
        chunk=s.get("chunk"),
        occurrence=s["occurrence"],
    )


def aligner(node: Node, log: Log | None = None) -> Callable[..., TrainingResult]:
    """What trains a policy, called with policy, reference, task, settings and seed.

    This package's trainer tells `log`, keeps checkpoints and shares the work with the processes of a launcher; TRL's
    has its own ways.
    """
    if node.settings["trainer"] == "native":
        return partial(align, log=log, checkpoints=Checkpoints.of(node.key), team=numpy_api.team())
    from alignfirst.lm.align.trl_trainer import align_with_trl  # imports TRL

    return align_with_trl


def trained(arrays: Mapping[str, NDArray[Any]], result: TrainingResult, **more: Json) -> Artefact:
    """A trained model: its arrays, what it cost, how training went, and what the world has to add or to correct.

    Raises StageFailure for weights that are not finite.
    """
    if not all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f"):
        raise StageFailure(f"weights are not finite after {result.updates} updates: lower the learning rate")
    meta: dict[str, Json] = {
        "updates": result.updates,
        "samples": result.samples,
        "flops": float(result.flops),
        "tokens": result.tokens,
        "curves": {name: [rounded(v) for v in curve] for name, curve in result.curves.items()},
    }
    return Artefact(arrays, meta | more)
