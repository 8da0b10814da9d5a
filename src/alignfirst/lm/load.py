"""A model and its tokenizer from files that were checked, and the other way round. The door of this room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from alignfirst.errors import InputError
from alignfirst.files import writing
from alignfirst.lm import need
from alignfirst.lm.cut import cut_layers
from alignfirst.lm.gguf import convert_gguf, smollm2_gguf
from alignfirst.lm.sources import CONFIG, TOKENIZERS, WEIGHTS, Resolved, Source, check_directory, offline, resolve
from alignfirst.lm.tiny import TinyLlama, build, from_arrays, parameter_count, stored_names, to_arrays
from alignfirst.lm.tokenizers import compare_tokenizers

__all__ = [
    "Loaded",
    "Resolved",
    "Source",
    "TinyLlama",
    "build",
    "check_directory",
    "compare_tokenizers",
    "convert_gguf",
    "cut_layers",
    "from_arrays",
    "load",
    "load_config",
    "load_tokenizer",
    "need",
    "offline",
    "parameter_count",
    "quiet",
    "resolve",
    "save",
    "smollm2_gguf",
    "to_arrays",
]

Head = Literal["causal-lm", "classifier"]
HEADS: dict[str, Any] = {"causal-lm": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification}


@dataclass(frozen=True)
class Loaded:
    """`model` in eval mode on the CPU. `tokenizer` is None where the directory has none (a grammar's model)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    resolved: Resolved


def load(
    source: Source | str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    head: Head = "causal-lm",
    cache: Path | None = None,
) -> Loaded:
    """Model and tokenizer of a directory, hub id or GGUF file. Files are checked first, see `sources.resolve`.

    Raises InputError also when weights are missing, of another shape, or left over: transformers would go on with
    random or dropped ones and only log it.
    """
    resolved = resolve(source if isinstance(source, Source) else Source(str(source)), cache)
    try:
        with quiet():
            model, info = HEADS[head].from_pretrained(
                resolved.path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as e:  # whatever transformers trips over in a config that somebody wrote
        raise InputError(
            "the model must be one that transformers ships", f"{resolved.path}: {e}", "Check its config.json."
        ) from e
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info[kind]:
            words = f"{len(info[kind])} {kind.replace('_', ' ')} in {resolved.path}: {min(map(str, info[kind]))}"
            raise InputError(
                "weights must fit config.json exactly", words, f"Save it as a {head} model with its config."
            )
    return Loaded(model.eval(), load_tokenizer(resolved), resolved)


def load_tokenizer(resolved: Resolved) -> PreTrainedTokenizerBase | None:
    """Tokenizer of a checked directory; None where it has no tokenizer files."""
    if not any((resolved.path / name).exists() for name in TOKENIZERS):
        return None
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                resolved.path, trust_remote_code=False, local_files_only=True
            )
    except Exception as e:  # the tokenizers library raises plain Exception for damaged files
        raise InputError("the tokenizer must load", f"{resolved.path}: {e}", "Fetch or save it again.") from e
    return tokenizer


def load_config(resolved: Resolved) -> Any:
    """The config alone, for a student of the same family with fresh weights: `build(load_config(r), seed)`."""
    return AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)


def save(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Write a directory that `load` accepts; tied weights once. What a quantised file was converted from is dropped."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        settings = json.loads(model.config.to_json_string())
        for stale in ("quantization_config", "_name_or_path"):
            settings.pop(stale, None)
        settings["architectures"] = [type(model).__name__]
        (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        stored = model.state_dict()
        weights = {name: stored[name].contiguous() for name in stored_names(model)}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors writes for the owner only
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log below errors: what matters is raised."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
