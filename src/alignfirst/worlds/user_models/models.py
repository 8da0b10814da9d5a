"""Artefacts that are models: what is in them, and how one is put together again.

A model as it came has no arrays, only its name and digest. One with adapters holds the adapters alone and names the
artefact that they belong to; loading merges them. Everything else holds all its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignfirst.data.rows import TokenRow
from alignfirst.lm.models import lora, named_models
from alignfirst.lm.models.build import build, from_arrays, to_arrays
from alignfirst.lm.models.surgery import cut_layers
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.nodes import Artefact, Json, Load
from alignfirst.worlds.trained import trained

Base = Mapping[str, Any]
CHECKED = 4  # rows whose log-probabilities are recorded with a model
CHECKED_TOKENS = 64  # at most, of each answer


def model_of(artefact: Artefact, load: Load, precision: str) -> Any:
    """The model, ready to be used; none of its weights is shared with another. Raises InputError, StageFailure."""
    return named_models.ready(whole(artefact, load), precision)


def whole(artefact: Artefact, load: Load) -> Any:
    """The model on the CPU, adapters merged."""
    meta = artefact.meta
    if "pretrained" in meta:
        return named_models.model_of(meta["pretrained"]["source"], meta["pretrained"]["digest"])
    if "base" in meta:
        adapter = meta["lora"]
        return lora.merge(base_of(meta["base"], load), artefact.arrays, adapter["alpha"] / adapter["rank"])
    return from_arrays(named_models.config_of(meta["architecture"]), artefact.arrays)


def base_of(base: Base, load: Load) -> Any:
    """The model that adapters were trained on: another artefact, a model as it came, or a student's start."""
    if "key" in base:
        return whole(load(base["key"]), load)
    if "pretrained" in base:
        return named_models.model_of(base["pretrained"]["source"], base["pretrained"]["digest"])
    return student_of(base)


def student_of(start: Base) -> Any:
    """The student before it learns, the same in every recipe. `start` holds student, teacher and seed."""
    student, teacher = start["student"], start["teacher"]
    if "layers" in student:
        return cut_layers(named_models.model_of(teacher["source"], teacher["digest"]), student["layers"])
    if "model" in student:
        return named_models.model_of(student["model"]["source"], student["model"]["digest"])
    return build(named_models.config_of(student["config"]), start["seed"])


def train(model: Any, settings: Mapping[str, Any], seed: int, training: Callable[[], Any]) -> Any:
    """Train all weights, or adapters where the settings ask for them. Returns what the training returned."""
    if "lora" in settings:
        lora.add_adapters(model, settings["lora"]["rank"], settings["lora"]["alpha"], seed)
    return training()


def artefact_of(
    model: Any, settings: Mapping[str, Any], base: Base, load: Load, result: Any, rows: list[TokenRow]
) -> Artefact:
    """A trained model as an artefact, with what it cost, how it went and what it says of a few rows.

    `base` says what adapters belong to, see `base_of`. Raises StageFailure where weights are not finite.
    """
    adapted = "lora" in settings
    arrays = lora.adapters(model) if adapted else to_arrays(model)
    about = {"architecture": named_models.architecture(model.config), "tokenizer": settings["tokenizer"]}
    about["from"] = origin(settings)
    if adapted:
        about |= {"base": dict(base), "lora": dict(settings["lora"])}
    found = trained(arrays, result, **about)
    if adapted:
        model = named_models.ready(whole(found, load), settings["precision"])  # what a reader will get
    return Artefact(arrays, {**found.meta, "check": checked(model, rows)})


def origin(settings: Mapping[str, Any]) -> dict[str, Json]:
    """Models and data that a stage names by itself, for the lineage of what becomes of it."""
    return {name: settings[name] for name in ("teacher", "student", "data") if name in settings}


def checked(model: Any, rows: list[TokenRow]) -> list[dict[str, Json]]:
    """Token ids of a few held-out rows and their log-probability: what an export must reproduce."""
    asked = [(r.prompt, [(r.chosen or r.prompt)[:CHECKED_TOKENS]]) for r in rows[:CHECKED]]
    scored = score_rows(model, asked)
    return [
        {"prompt": list(p), "answer": list(a[0]), "logp": float(s[0].sum())}
        for (p, a), s in zip(asked, scored, strict=True)
    ]
