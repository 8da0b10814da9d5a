"""Where a model's files come from, and whether they may be opened: safetensors only, no code, nothing missing.

Every check here reads JSON and file headers. A pickle is refused by its name, before any of its bytes are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from alignfirst.errors import InputError, shorten
from alignfirst.lm import need

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
MAX_SETTINGS = 32 << 20  # bytes of a config
MAX_SIZE = 1 << 31  # any number that a config gives for a size
MAX_LAYERS = 4096
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """What a user names: a directory, a .gguf file or a hub id; a hub revision; the GGUF file in that place."""

    path_or_id: str
    revision: str | None = None
    gguf_file: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A directory that passed the checks. `commit`: the hub's commit, or `sha256:` and the digest of local files."""

    path: Path
    commit: str


def offline() -> bool:
    """HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE), also when it was set after the hub library was imported."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in names)


def resolve(source: Source, cache: Path | None = None) -> Resolved:
    """Files of a source, checked, with what identifies them. GGUF is converted into `cache` once.

    Raises InputError: no such model or revision, pickled weights, remote code, an adapter, missing or damaged files.
    """
    place = Path(source.path_or_id).expanduser()
    if source.gguf_file or place.suffix == ".gguf":
        from alignfirst.lm.gguf import convert_gguf

        file, commit = _gguf_file(source, place)
        folder = convert_gguf(file, cache or default_cache())
        return Resolved(folder, commit or digest(folder))
    if place.is_dir():
        if source.revision is not None:
            raise InputError(
                "a revision names a commit on the hub", f"revision {source.revision!r} of {place}", "Leave it out."
            )
        check_directory(place)
        return Resolved(place, digest(place))
    if place.exists():
        raise InputError("a model is a directory, a .gguf file or a hub id", str(place), "Name its directory.")
    folder = _download(source, SMALL)
    check_settings(folder, source.path_or_id)  # before any weight is fetched
    folder = _download(Source(source.path_or_id, folder.name), (*SMALL, "*.safetensors"))
    check_directory(folder, source.path_or_id)
    return Resolved(folder, folder.name)


def default_cache() -> Path:
    """Where converted models are kept: $ALIGNFIRST_CACHE, else the user's cache directory."""
    own = os.environ.get("ALIGNFIRST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignfirst"


# -- the hub ----------------------------------------------------------------------------------------------------------


def _download(source: Source, patterns: tuple[str, ...]) -> Path:
    """Snapshot directory of a hub id; its name is the commit that the revision stands for."""
    from huggingface_hub import snapshot_download

    with _hub_errors(source):
        folder = snapshot_download(
            source.path_or_id,
            revision=source.revision,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],  # exports to other formats live in folders of their own
            local_files_only=offline(),
        )
    return Path(folder)


def _gguf_file(source: Source, place: Path) -> tuple[Path, str | None]:
    """The GGUF file of a source, and its commit where it came from the hub."""
    need("gguf")
    file = place / (source.gguf_file or "") if source.gguf_file else place
    if file.is_file():
        return file, None
    if place.exists() or place.suffix == ".gguf" or not HUB_ID.fullmatch(source.path_or_id):
        raise InputError("the GGUF file must exist", str(file), "Check the path.")
    from huggingface_hub import hf_hub_download

    with _hub_errors(source):
        path = hf_hub_download(
            source.path_or_id, source.gguf_file, revision=source.revision, local_files_only=offline()
        )
    file = Path(path)
    return file, file.parents[len(Path(source.gguf_file or "").parts) - 1].name


@contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    """Turn what the hub library raises into InputError with a cure."""
    from huggingface_hub import errors

    name = source.path_or_id if source.revision is None else f"{source.path_or_id} at {source.revision}"
    if not HUB_ID.fullmatch(source.path_or_id):
        raise InputError("a model is a directory that exists, a .gguf file or a hub id", name, "Check the path.")
    try:
        yield
    except errors.GatedRepoError as e:
        raise InputError("the model must be open to you", name, "Accept its terms on the hub and log in.") from e
    except errors.RevisionNotFoundError as e:
        raise InputError("the revision must exist on the hub", name, "Use a branch, a tag or a full commit.") from e
    except errors.RepositoryNotFoundError as e:
        raise InputError("the model must exist on the hub", name, "Check its id, or log in if it is private.") from e
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as e:
        cure = "Unset HF_HUB_OFFLINE once to fetch it." if offline() else "Check the network, or name a directory."
        raise InputError("the model must be in the hub cache or within reach", name, cure) from e
    except errors.EntryNotFoundError as e:
        raise InputError("the file must exist in the repository", f"{source.gguf_file} of {name}", "Check it.") from e
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as e:
        raise InputError("the hub must answer for the model", f"{name}: {e}", "Try again, or name a directory.") from e


# -- checks of a directory --------------------------------------------------------------------------------------------


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


def check_settings(folder: Path, name: str) -> None:
    """Refuse a directory without a config, with code of its own, or that is only an adapter."""
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
        total.update(f"{file.name} {file_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def file_digest(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
