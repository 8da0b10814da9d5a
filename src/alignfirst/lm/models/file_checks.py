"""Whether a model's files may be opened: safetensors only, no code of their own, nothing missing, no absurd sizes.

Every check reads JSON and file headers. A pickle is refused by its name, before any of its bytes are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from alignfirst.errors import InputError, shorten
from alignfirst.files import known_digest

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
TEMPLATES = "additional_chat_templates"  # the one folder within that is read
MAX_SETTINGS = 32 << 20  # bytes of a config
MAX_SIZE = 1 << 31  # any number that a config gives for a size
MAX_LAYERS = 4096
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers")


def check_directory(folder: Path, name: str | None = None) -> None:
    """Refuse what must not or cannot be loaded. Reads JSON and safetensors headers only."""
    name = name or str(folder)
    check_settings(folder, name)
    tensors = 0
    if (folder / INDEX).exists():
        tensors = _check_shards(folder, name)
    elif (folder / WEIGHTS).is_file():
        tensors = len(tensor_names(folder / WEIGHTS))
    else:
        _no_weights(folder, name)
    check_sizes(read_json(folder / CONFIG), name, tensors)


def check_sizes(settings: Mapping[str, Any], name: str, layers: int = MAX_LAYERS) -> None:
    """Refuse sizes that no model has. A model is built layer by layer before its weights are looked at: a billion of
    them would take days. A layer has at least one tensor, so that the weights say how many there may be."""
    for key, value in settings.items():
        if isinstance(value, dict):
            check_sizes(value, name, layers)
        elif isinstance(value, int) and abs(value) > MAX_SIZE:
            given = f"{shorten(key, 40)} in {name}, of {value.bit_length()} bits"
            raise InputError(f"a config's numbers must be at most {MAX_SIZE}", given, "Fetch or save the model again.")
        elif isinstance(value, int) and key in LAYERS and value > min(layers, MAX_LAYERS):
            rule = f"{key} must be at most {min(layers, MAX_LAYERS)}, the number of tensors in the weights or the most"
            raise InputError(rule, f"{value} in {name}", "Fetch or save the model again.")


def check_links(folder: Path, name: str) -> None:
    """Refuse links that lead out of a model's directory: what they lead to would be copied into store and export.

    A snapshot of the hub's cache holds links to the blobs of its own repository. A link to nothing is refused, too.
    """
    own = folder.resolve()
    allowed = [own]
    if own.parent.name == "snapshots":
        allowed.append(own.parent.parent / "blobs")
    for place in (folder, folder / TEMPLATES):
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if not file.is_symlink():
                continue
            try:
                target = file.resolve(strict=True)
            except (OSError, RuntimeError):  # it leads nowhere, or in a circle
                target = None
            if target is None or not any(target.is_relative_to(root) for root in allowed):
                rule = "links in a model's directory must stay in it"
                raise InputError(rule, f"{file.name} of {name}", "Put a copy of the file in its place.")


def check_settings(folder: Path, name: str) -> None:
    """Refuse a directory without a config, with links that lead out or code of its own, or that is only an adapter."""
    check_links(folder, name)
    if (folder / "adapter_config.json").exists():
        raise InputError("a model must be whole", f"{name} holds an adapter", "Merge it into its base model and save.")
    if not (folder / CONFIG).is_file():
        pickles = _pickles(folder)
        if pickles:
            _refuse_pickles(name, pickles)
        raise InputError("a model directory holds config.json", name, "Name the directory that save_pretrained made.")
    for file in sorted(folder.glob("*.json")):
        if file.name not in (CONFIG, "tokenizer_config.json", "generation_config.json", "processor_config.json"):
            continue
        settings = read_json(file)
        check_sizes(settings if file.name == CONFIG else {}, name)
        if "auto_map" in settings:
            raise InputError(
                "a model may not bring code of its own (auto_map)",
                f"{file.name} of {name}",
                "Use an architecture that transformers ships, and remove auto_map.",
            )


def _check_shards(folder: Path, name: str) -> int:
    """Every shard of the index is a safetensors file beside it and holds the tensors that the index says: so many."""
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("a shard index has a weight_map", f"{INDEX} of {name}", "Save the model again.")
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        shards.setdefault(str(shard), set()).add(tensor)
    pickles = [shard for shard in shards if Path(shard).suffix in PICKLES]
    if pickles:
        _refuse_pickles(name, pickles)
    strange = [s for s in shards if Path(s).name != s or not s.endswith(".safetensors")]
    if strange:
        raise InputError("shards are safetensors files beside their index", strange[0], "Save the model again.")
    missing = sorted(s for s in shards if not (folder / s).is_file())
    if missing:
        raise InputError(
            "every shard of the index must be there",
            f"{len(missing)} of {len(shards)} missing in {name}: {missing[0]}",
            "Fetch the model again.",
        )
    for shard, tensors in shards.items():
        lost = tensors - tensor_names(folder / shard)
        if lost:
            raise InputError("a shard holds what the index says", f"{shard} lacks {min(lost)}", "Fetch it again.")
    return len(weight_map)


def tensor_names(file: Path) -> set[str]:
    """Names in a safetensors file; the header is checked against the size of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as f:
            return set(f.keys())
    except (SafetensorError, OSError) as e:
        raise InputError("weights must be a whole safetensors file", f"{file}: {e}", "Fetch or save it again.") from e


def read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_SETTINGS:
            raise ValueError(f"more than {MAX_SETTINGS >> 20} MB")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError("a model's settings must be JSON", f"{file}: {e}", "Fetch or save it again.") from e
    if not isinstance(content, dict):
        raise InputError("a model's settings are a JSON object", str(file), "Fetch or save it again.")
    return content


def digest(folder: Path) -> str:
    """`sha256:` and the digest of names and contents of the files that decide what is loaded."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if any(p.match(x) for x in (*SMALL, "*.safetensors"))):
        total.update(f"{file.name} {known_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _pickles(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)


def _no_weights(folder: Path, name: str) -> NoReturn:
    pickles = _pickles(folder)
    if pickles:
        _refuse_pickles(name, pickles)
    cure = f"It must hold {WEIGHTS}, or {INDEX} and its shards: save the model with save_pretrained, or fetch it again."
    raise InputError("a model directory holds safetensors weights", f"none in {name}", cure)


def _refuse_pickles(name: str, pickles: list[str]) -> NoReturn:
    raise InputError(
        "weights must be safetensors: opening a pickle can run any code",
        f"{pickles[0]} in {name}; it was not opened",
        "Convert it where you trust it: load it there and save_pretrained(...).",
    )
