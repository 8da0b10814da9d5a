"""A tiny teacher with a built tokenizer, and preference files: what tests of own models share."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignfirst.lm.models import load as lm
from alignfirst.study.config.study_config import StudyConfig, from_mapping

WORDS = "a b c d e f g h i j user assistant"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
SIZES = lm.TinyLlama(vocab=14, hidden=16, layers=4, heads=2, kv_heads=1, intermediate=32, positions=64)


def tokenizer(template: str | None = None, words: str = WORDS) -> PreTrainedTokenizerFast:
    vocab = {w: n for n, w in enumerate(["<unk>", "<end>", *words.split()])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    made.chat_template = template
    return made


def teacher(folder: Path, template: str | None = None, seed: int = 1, words: str = WORDS) -> Path:
    lm.save(lm.build(SIZES, seed), folder, tokenizer(template, words))
    return folder


def pairs(n: int = 80, seed: int = 0) -> list[dict[str, Any]]:
    """Answers of the first letters are preferred to those of the last."""
    rng = random.Random(seed)

    def some(letters: str, low: int) -> str:
        return " ".join(rng.choices(letters, k=rng.randint(low, 6)))

    return [
        {"prompt": some("abcdefghij", 2), "chosen": f" {some('abc', 2)}", "rejected": f" {some('hij', 2)}"}
        for _ in range(n)
    ]


def write(path: Path, rows: list[Any]) -> Path:
    """JSON lines; a row that is bytes stands as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def study(folder: Path, data: Path, **more: Any) -> StudyConfig:
    """A study of the teacher in `folder`, small enough for seconds; dotted keys on top."""
    base: Mapping[str, Any] = {
        "world": "hf",
        "teacher": {"model": str(folder)},
        "student": {"layers": 2},
        "data": {"pairs": str(data), "held_out": 0.3},
        "distil": {"steps": 6, "batch": 8, "samples": 16, "prompts": 8, "new_tokens": 6, "top_k": None},
        "align": {"updates": 8, "learning_rate": 1e-3, "samples": 8, "chunk": 4},
        "measure": {"pairs": 12, "prompts": 6, "samples": 12, "new_tokens": 6},
    }
    return from_mapping(base).with_values(more)
