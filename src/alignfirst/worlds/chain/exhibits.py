"""What the report may show of the chain's models: a few of their texts, and how training went. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from alignfirst.nodes import Artefact, Json
from alignfirst.stats import curves

CURVES = ("reward", "kl", "entropy", "target_share", "loss", "held_out", "grad_norm")


def exhibits(config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
    """Content of exhibits.json; its shape is documented in docs/smollm2.md."""
    shown = (m.meta.get("shown", {}) for m in models.values())
    truth = next((s["truth"] for s in shown if s.get("truth")), None)  # the same texts, whichever model was measured
    return {
        "kind": "text",
        "length": config.p_star.length,
        "prompts": [config.p_star.prompt],
        "truth": truth,
        "models": {key: _model(m.meta) for key, m in models.items()},
    }


def _model(meta: Mapping[str, Any]) -> dict[str, Json]:
    texts = [{"prompt": 0, **text} for text in meta.get("shown", {}).get("texts", [])]
    held_out = meta.get("held_out")
    return {
        "config": meta["config"],
        "texts": texts,
        "curves": curves.shown(meta, CURVES),
        "perplexity": None if held_out is None else exp(held_out),  # on held-out texts of what it learned from
    }
