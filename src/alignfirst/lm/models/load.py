"""A model and its tokenizer from files that were checked, and the other way round. The door of this room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignfirst.errors import InputError
from alignfirst.extras import need, offline
from alignfirst.lm.models.build import TinyLlama, build, from_arrays, parameter_count, to_arrays
from alignfirst.lm.models.file_checks import TOKENIZERS, check_directory
from alignfirst.lm.models.gguf import convert_gguf, smollm2_gguf
from alignfirst.lm.models.hub import Resolved, Source, resolve
from alignfirst.lm.models.save import quiet, save
from alignfirst.lm.models.surgery import cut_layers
from alignfirst.lm.models.tokenizers import compare_tokenizers

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
    dtype: torch.dtype | str = torch.float32,
    *,
    head: Head = "causal-lm",
    cache: Path | None = None,
) -> Loaded:
    """Model and tokenizer of a directory, a hub id or a GGUF file.

    `dtype` of the weights in memory, as torch's or by its name ("bfloat16"); `head` says what the model ends in;
    `cache` is where a GGUF file is converted into (None: the user's cache). The model comes in eval mode, on the CPU.
    Files are checked before they are opened: safetensors only, no code of their own, sizes that a model can have.

    Raises InputError for what `hub.resolve` refuses, and when weights are missing, of another shape, or left over:
    transformers would go on with random or dropped ones and only log it.
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
