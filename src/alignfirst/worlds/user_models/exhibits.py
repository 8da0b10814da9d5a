"""What the report may show of own models: what they answer, how training went, what they are. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from alignfirst.nodes import Artefact, Json
from alignfirst.stats import curves


def exhibits(models: Mapping[str, Artefact]) -> dict[str, Json]:
    """Content of exhibits.json: answers to the same held-out prompts; what a model is beside its curves."""
    shown = {key: model.meta.get("shown", {}) for key, model in models.items()}
    return {
        "kind": "text",
        "prompts": next((s["prompts"] for s in shown.values() if s.get("prompts")), []),
        "models": {
            key: {
                "texts": shown[key].get("texts", []),
                "layers": model.meta["architecture"].get("num_hidden_layers"),
                "lora": model.meta.get("lora"),
                "curves": curves.shown(model.meta, list(model.meta["curves"])),
            }
            for key, model in models.items()
        },
    }
