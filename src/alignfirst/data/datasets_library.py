"""Data sets of the `datasets` library, from a folder or the hub. No code of theirs is run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from alignfirst.errors import InputError
from alignfirst.extras import need, offline
from alignfirst.files import file_digest


def open_dataset(name: str, split: str) -> tuple[Any, str]:
    """The rows of one split, memory-mapped, and what identifies them.

    `name`: a folder that `save_to_disk` made, or a hub id (`id@revision`). Raises InputError.
    """
    need("datasets")
    import datasets

    datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = _of_folder(datasets, folder)
        return _split(found, split, name), _identity(folder)
    place, _, revision = name.partition("@")
    try:
        found = datasets.load_dataset(place, revision=revision or None, split=split)
    except Exception as e:  # whatever the hub, the cache and the files behind it trip over
        cure = "Unset HF_HUB_OFFLINE once to fetch it." if offline() else "Check its id and split, or name a file."
        raise InputError("the data set must be in the hub cache or within reach", f"{name}: {e}", cure) from e
    return found, f"{name}:{split}:{found._fingerprint}"


def _of_folder(datasets: Any, folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        cure = "Name the folder that save_to_disk made, or one of its files of JSON lines or Parquet."
        raise InputError("a data folder must be one of the datasets library", str(folder), cure)
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as e:  # damaged files: the library raises what its parts raise
        raise InputError("the data folder must load", f"{folder}: {e}", "Save it again.") from e


def _split(found: Any, split: str, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    if split not in found:
        raise InputError("data.split must be one of the data set's", split, f"{name} has {', '.join(found)}.")
    return found[split]


def _identity(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".arrow", ".json")):
        total.update(f"{file.relative_to(folder)} {file_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"
