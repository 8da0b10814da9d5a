"""Models as a study of a user's own models keeps them: named, identified, taken apart into arrays and put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, GenerationConfig

from alignfirst.data.turns import Ends, ends_of
from alignfirst.errors import InputError
from alignfirst.lm.models.file_checks import CONFIG, check_links, read_json
from alignfirst.lm.models.gguf import smollm2_gguf
from alignfirst.lm.models.hub import Resolved, Source, resolve
from alignfirst.lm.models.load import load, load_config, load_tokenizer
from alignfirst.lm.models.save import save
from alignfirst.lm.models.tokenizers import compare_tokenizers
from alignfirst.lm.text.device import local_device

SMOLLM2 = "smollm2-135m-instruct"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
GENERATION, GENERATION_ENDS = "generation_config.json", "generation_ends"
Arrays = dict[str, NDArray[Any]]


def found(name: str) -> Resolved:
    """Checked files of a model that a study names: a directory, a .gguf file, a hub id (`id@revision`) or SMOLLM2."""
    if name == SMOLLM2:
        return _found(str(smollm2_gguf()), None, ())
    path = Path(name).expanduser()
    place, _, revision = name.rpartition("@")
    if place and not path.exists():
        return _found(place, revision, ())
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    about = [(f.name, f.stat()) for f in files]
    return _found(str(path) if path.exists() else name, None, tuple((n, s.st_size, s.st_mtime_ns) for n, s in about))


@lru_cache(maxsize=16)
def _found(name: str, revision: str | None, files: tuple[tuple[str, int, int], ...]) -> Resolved:
    """Weights are digested once as long as the files do not change."""
    return resolve(Source(name, revision))


def identified(name: str, commit: str) -> Resolved:
    """Files of a study's model. Raises InputError where they are not those of `commit`, which identified it before."""
    place = found(name)
    if place.commit != commit:
        raise InputError("a model must not change while a study uses it", f"{name}: {place.commit}", "Restore it.")
    return place


def model_of(name: str, commit: str) -> Any:
    """The model of a study, in float32 on the CPU. Raises InputError where it is not the one that was identified."""
    return load(str(identified(name, commit).path)).model


def architecture(config: Any) -> dict[str, Any]:
    """A model's config as plain data."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "quantization_config", "dtype", "torch_dtype", "transformers_version"):
        plain.pop(name, None)
    return plain


def config_of(plain: Mapping[str, Any]) -> Any:
    """The config that `architecture` gave as plain data."""
    settings = dict(plain)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def architecture_of(name: str) -> dict[str, Any]:
    """The config, as plain data, of a model that a study names."""
    return architecture(load_config(found(name)))


def architecture_in(name: str) -> dict[str, Any]:
    """The plain data of a config that a study names: a config.json, a folder that has one, or a model's name.

    Raises InputError where it is no model that transformers ships, or brings code of its own.
    """
    path = Path(name).expanduser()
    file = path / CONFIG if path.is_dir() else path
    if not file.is_file():
        return architecture_of(name)
    if path.is_dir():
        check_links(path, name)
    plain = read_json(file)
    if "auto_map" in plain:
        raise InputError("a config may not bring code of its own (auto_map)", name, "Use one that transformers ships.")
    try:
        return architecture(config_of(plain))
    except (KeyError, ValueError, TypeError) as e:
        raise InputError("a config must be of a model that transformers ships", f"{name}: {e}", "Check it.") from e


def ready(model: Any, precision: str) -> Any:
    """The model in the precision of the study ("float32", "bfloat16"), on the device of this process."""
    return model.to(device=local_device(), dtype=TYPES[precision]).eval()


# -- tokenizers -------------------------------------------------------------------------------------------------------


def tokenizer_arrays(place: Resolved, *others: Resolved) -> Arrays:
    """The tokenizer's files as bytes, and the ids at which its models (`others` too) stop by their generation configs.

    They travel with every model of a run. Raises InputError where there are no files.
    """
    arrays = {
        name: np.frombuffer((place.path / name).read_bytes(), np.uint8)
        for name in TOKENIZER_FILES
        if (place.path / name).is_file() and (place.path / name).stat().st_size
    }
    if not arrays:
        raise InputError("a model of a study needs its tokenizer", str(place.path), "Save the tokenizer beside it.")
    ends = generation_ends(place, *others)
    return arrays | {GENERATION_ENDS: np.array(ends, np.int64)} if ends else arrays


def write_tokenizer(arrays: Mapping[str, NDArray[Any]], folder: Path) -> None:
    for name, content in arrays.items():
        if name in TOKENIZER_FILES:
            (folder / name).write_bytes(content.tobytes())


def tokenizer_of(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The tokenizer that `tokenizer_arrays` took apart."""
    with TemporaryDirectory(prefix="alignfirst-tokenizer-") as folder:
        write_tokenizer(arrays, Path(folder))
        return load_tokenizer(Resolved(Path(folder), ""))


def ends_in(arrays: Mapping[str, NDArray[Any]], tokenizer: Any) -> Ends:
    """Where answers end, of what `tokenizer_arrays` took apart and its tokenizer."""
    return ends_of(tokenizer, np.asarray(arrays.get(GENERATION_ENDS, ())).tolist())


def generation_ends(*places: Resolved) -> tuple[int, ...]:
    """Ids at which transformers' `generate` stops by itself: of the generation config, where there is none of the
    model's. An id that the model has no token for (a default of its family) stops nothing and is left out."""
    found: dict[int, None] = {}
    for place in places:
        config, file = load_config(place), place.path / GENERATION
        plain = read_json(file) if file.is_file() else GenerationConfig.from_model_config(config).to_dict()
        named = plain.get("eos_token_id")
        size = config.get_text_config().vocab_size
        for i in named if isinstance(named, list) else [named]:
            if isinstance(i, int) and 0 <= i < size:
                found.setdefault(i)
    return tuple(found)


def tokenizer_differences(first: str, second: str) -> list[str]:
    """In words; empty where two named models have the same tokenizer."""
    return compare_tokenizers(*(load_tokenizer(found(name)) for name in (first, second)))


# -- folders ----------------------------------------------------------------------------------------------------------


def write_model(model: Any, folder: Path, ends: Ends) -> None:
    """Weights, config and generation config, as `from_pretrained` reads them. Answers end where training ended them."""
    save(model, folder)
    special = {name: getattr(model.config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if ends.ids:
        special["eos_token_id"] = list(ends.ids) if len(ends.ids) > 1 else ends.ids[0]
    if special["pad_token_id"] is None:
        special["pad_token_id"] = ends.ids[0] if ends.ids else special["eos_token_id"]
    GenerationConfig(**{name: token for name, token in special.items() if token is not None}).save_pretrained(folder)


def load_folder(folder: Path) -> Any:
    return load(str(folder)).model
