"""The chain's config: presets at the paper's sizes, and a page that says every default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignfirst.costs.transformer import TransformerSize
from alignfirst.study.config import preset_files
from alignfirst.study.config.study_config import from_mapping

PAGE = Path(__file__).parents[2] / "docs" / "smollm2.md"


def test_every_key_is_documented_with_its_default() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| key | default | |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()]
    data = from_mapping({"world": "chain"}).resolved()
    keys: dict[str, Any] = {key: data[key] for key in ("beta", "seeds", "scale", "shard", "chunk")}
    for section, values in data.items():
        if isinstance(values, dict) and section != "vary":
            keys |= {f"{section}.{key}": value for key, value in values.items()}
    assert rows == [[f"`{key}`", plain(value)] for key, value in keys.items()]


def plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{x:g}" for x in value)
    return "none" if value is None else str(value)


def weights(preset: str, section: str) -> int:
    data = preset_files.load(preset).resolved()
    sizes = {k: data[section][k] for k in ("hidden", "layers", "heads", "kv_heads", "intermediate")}
    return TransformerSize.llama(data["p_star"]["keep"] or data["p_star"]["vocabulary"], **sizes).parameters


def test_the_papers_sizes() -> None:
    """Counts of the published models: SmolLM2-360M, 135M (with tied embeddings)."""
    assert weights("smollm2", "sft") == 361_821_120
    assert weights("smollm2", "distil") == weights("smollm2", "target") == 134_515_008
    study = preset_files.load("smollm2")
    assert study.vary == {"distil.temperature": (0.8, 0.875, 0.95, 1.0)} and len(study.seed_list) == 5
    assert set(study.recipes) == {"align-distil", "distil-align", "align-only", "distil-only"}
    assert set(study.algorithms) == {"ppo", "dpo-offline", "dpo-online", "rloo", "grpo"}


def test_the_small_preset_is_what_two_cores_can_do() -> None:
    p = preset_files.load("smollm2-cpu").resolved()["p_star"]
    assert (p["source"], p["keep"], p["length"], p["samples"]) == ("packaged", 2048, 32, 4000)
    assert all(1e6 <= weights("smollm2-cpu", section) <= 5e6 for section in ("sft", "distil", "target"))


def test_seeds_of_the_small_preset_can_be_raised() -> None:
    assert preset_files.load("smollm2-cpu", ["seeds=3"]).seed_list == (0, 1, 2)
