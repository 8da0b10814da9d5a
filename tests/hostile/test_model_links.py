"""Links in a model's folder: what lies outside is neither read nor copied."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import Count

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

from alignfirst.errors import InputError
from alignfirst.lm.models.file_checks import TEMPLATES, check_settings

NAMES = (
    "vocab.txt", "merges.txt", "vocab.json", "tokenizer.json", "chat_template.jinja", "model.safetensors",
    "config.json", f"{TEMPLATES}/a.jinja", "tokenizer.model", "added_tokens.json",
)  # fmt: skip


def model(folder: Path) -> Path:
    (folder / TEMPLATES).mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_links_that_lead_out(tmp_path: Path, name: str, count: Callable[[str], Count]) -> None:
    """A model's folder with a link to a file outside, straight or over another link, is refused before it is read."""
    secret = tmp_path / "secret"
    secret.write_text("{}")
    folder = model(tmp_path / "model")
    (tmp_path / "hop").symlink_to(secret)
    with count("leaks: links out of a model").trial():
        for target in (secret, os.path.relpath(secret, (folder / name).parent), tmp_path / "hop", tmp_path / "nowhere"):
            file = folder / name
            file.unlink(missing_ok=True)
            file.symlink_to(target)
            with pytest.raises(InputError, match="must stay in it"):
                check_settings(folder, "model")


def test_links_that_may_stay(tmp_path: Path, count: Callable[[str], Count]) -> None:
    """Links within a model's folder, and those of a hub cache to its own blobs, are followed."""
    counted = count("leaks: links that may stay")
    with counted.trial():
        folder = model(tmp_path / "model")
        (folder / "vocab.txt").write_text("a")
        (folder / "merges.txt").symlink_to("vocab.txt")
        check_settings(folder, "model")
        (tmp_path / "alias").symlink_to(folder)  # the folder that a user names may be a link itself
        check_settings(tmp_path / "alias", "alias")
    with counted.trial():
        for repository in ("models--a", "models--b"):
            (tmp_path / repository / "blobs").mkdir(parents=True)
            (tmp_path / repository / "blobs" / "1").write_text("{}")
        snapshot = tmp_path / "models--a" / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").symlink_to("../../blobs/1")
        check_settings(snapshot, "a")
        (snapshot / "vocab.txt").symlink_to("../../../models--b/blobs/1")
        with pytest.raises(InputError, match=r"vocab\.txt of a"):
            check_settings(snapshot, "a")
