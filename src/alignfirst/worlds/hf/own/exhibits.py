"""What the report may show of own models: how training went, what they are. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignfirst.curves import thinned
from alignfirst.worlds.protocol import Artefact, Json


def exhibits(models: Mapping[str, Artefact]) -> dict[str, Json]:
    """Content of exhibits.json; its shape is documented in docs/own-models.md."""
    return {
        "kind": "own",
        "models": {
            key: {
                "layers": model.meta["architecture"].get("num_hidden_layers"),
                "lora": model.meta.get("lora"),
                "curves": curves(model.meta),
            }
            for key, model in models.items()
        },
    }


def curves(meta: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Curves over updates, each point the mean of a block; none of a model that was not trained."""
    return thinned(meta["curves"], list(meta["curves"]), int(meta["updates"])) if meta["updates"] else {}
