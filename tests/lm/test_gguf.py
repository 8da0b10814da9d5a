"""GGUF files: refused, converted once, converted anew where a conversion was altered."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from alignfirst import files
from alignfirst.errors import InputError
from alignfirst.lm.models import gguf
from alignfirst.lm.models import load as lm

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import TINY, refused, tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return lm.build(TINY, seed=3)


@pytest.fixture
def saved(model: Any, tmp_path: Path) -> Path:
    lm.save(model, tmp_path / "m", tokenizer(template="{{ messages }}"))
    return tmp_path / "m"


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04")
    with refused("begins with GGUF"):
        lm.load(tmp_path / "m.gguf", cache=tmp_path / "cache")
    (tmp_path / "n.gguf").write_bytes(b"GGUF" + bytes(64))
    with refused("GGUF"):
        lm.load(tmp_path / "n.gguf", cache=tmp_path / "cache")
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock", ".lock"]


@pytest.mark.parametrize("altered", ["model.safetensors", "config.json", "alignfirst.json", "alignfirst.digests"])
def test_a_converted_model_that_was_altered_is_converted_anew(
    altered: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def convert(path: Path, folder: Path) -> None:
        made.append(path)
        shutil.copytree(saved, folder, dirs_exist_ok=True)

    monkeypatch.setattr(gguf, "_convert", convert)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    folder = gguf.convert_gguf(tmp_path / "m.gguf", tmp_path / "cache")
    assert gguf.convert_gguf(tmp_path / "m.gguf", tmp_path / "cache") == folder
    assert len(made) == 1
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    content = bytearray(whole[altered])
    content[len(content) // 2] ^= 1
    stamp = (folder / altered).stat()
    (folder / altered).write_bytes(content)
    os.utime(folder / altered, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    files._digest_of.cache_clear()  # as in another process
    with caplog.at_level(logging.WARNING):
        assert gguf.convert_gguf(tmp_path / "m.gguf", tmp_path / "cache") == folder
    assert len(made) == 2 and "is converted anew" in caplog.text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


@pytest.mark.slow
def test_smollm2_is_converted_once_and_answers(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    try:
        file = lm.smollm2_gguf()
    except InputError as e:
        pytest.skip(str(e))
    loaded = lm.load(file, cache=tmp_path)
    stamp = (loaded.resolved.path / "model.safetensors").stat().st_mtime_ns
    again = lm.load(lm.Source(str(file.parent), gguf_file=file.name), cache=tmp_path)
    assert again.resolved == loaded.resolved
    assert (loaded.resolved.path / "model.safetensors").stat().st_mtime_ns == stamp
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    assert lm.compare_tokenizers(loaded.tokenizer, again.tokenizer) == []
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = loaded.tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    generator = torch.Generator().manual_seed(0)
    from alignfirst.lm.sampling.sample import sample

    drawn = sample(loaded.model, ids, 12, generator, temperature=0.01, ends=(loaded.tokenizer.eos_token_id,))
    assert "Paris" in loaded.tokenizer.decode(drawn.tokens[0])
