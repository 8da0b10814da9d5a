"""What the scripts of the language-model chain share: its full-size preset at tiny sizes, with SmolLM2's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HIDDEN, VOCABULARY = 24, 49_152


def star(folder: Path) -> int:
    """A model of SmolLM2's architecture at a tiny size, fresh weights, with the tokenizer of the packaged model; made
    once. Returns its number of weights."""
    from alignfirst.lm.models.build import SmolLlama
    from alignfirst.lm.models.load import Source, build, load_tokenizer, parameter_count, resolve, save, smollm2_gguf

    sizes = SmolLlama(VOCABULARY, HIDDEN, 2, 3, 1, 48, 64)
    if not (folder / "config.json").exists():
        save(build(sizes, 0), folder, load_tokenizer(resolve(Source(str(smollm2_gguf())))))
    return parameter_count(sizes)


def tiny(folder: Path, **more: Any) -> dict[str, Any]:
    """Keys that shrink `smollm2` to seconds: models, texts and steps, but every algorithm, recipe and temperature."""
    sets: dict[str, Any] = {
        "seeds": 1, "distil.temperature": [0.8, 1.0], "shard": 16, "chunk": 4, "preferences.pairs": 16,
        "p_star.source": str(folder), "p_star.parameters": star(folder), "p_star.hidden": HIDDEN, "p_star.layers": 2,
        "p_star.dtype": "float32", "p_star.length": 12, "p_star.samples": 48, "p_star.held_out": 16,
        "target.samples": 32, "target.held_out": 16, "target.calibrated": 16, "distil.samples": 32,
        "distil.held_out": 16, "align.updates": 4, "align.samples": 16, "align.group_size": 4,
        "measure.samples": 16, "measure.scored": 8,
    }  # fmt: skip
    for section, hidden, layers in (("target", 12, 1), ("sft", 24, 2), ("distil", 12, 1)):
        sizes = {"hidden": hidden, "layers": layers, "heads": 3, "kv_heads": 1, "intermediate": 2 * hidden}
        fit = {"batch": 16, "epochs": 2, "checks": 2}
        sets |= {f"{section}.{key}": value for key, value in (sizes | fit).items()}
    return sets | more
