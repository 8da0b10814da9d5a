"""Where a model's files come from: a directory, a GGUF file or the hub. All are checked before they are opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignfirst.errors import InputError
from alignfirst.extras import need, offline
from alignfirst.files import default_cache
from alignfirst.lm.models.file_checks import SMALL, check_directory, check_settings, digest
from alignfirst.lm.models.gguf import convert_gguf

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


def resolve(source: Source, cache: Path | None = None) -> Resolved:
    """Files of a source, checked, with what identifies them. GGUF is converted into `cache` once.

    Raises InputError: no such model or revision, pickled weights, remote code, an adapter, missing or damaged files.
    """
    place = Path(source.path_or_id).expanduser()
    if source.gguf_file or place.suffix == ".gguf":
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
