"""A model as a directory that `load` accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from alignfirst.files import writing
from alignfirst.lm.models.build import stored_names
from alignfirst.lm.models.file_checks import CONFIG, WEIGHTS


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
