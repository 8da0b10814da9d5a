"""An algorithm, a recipe and a reward that alignfirst finds by their entry points."""

from __future__ import annotations

from typing import Any

from alignfirst.study.config.recipe import Stage
from alignfirst.theory.objectives import Algorithm


def dr_grpo(shaped: Any, log_ratio: Any, group: int) -> Any:
    """GRPO without its division by the group's sd: (r_n - group mean) / N (Liu et al. 2025, arXiv 2503.20783)."""
    r = shaped.reshape(*shaped.shape[:-1], -1, group)
    return (r - r.mean(-1, keepdims=True)).reshape(shaped.shape) / shaped.shape[-1]


DR_GRPO = Algorithm("dr-grpo", "rollouts", dr_grpo, "Liu et al. 2025, arXiv 2503.20783")

DISTIL_ALIGN_DISTIL = (Stage("distil"), Stage("align"), Stage("distil"))


def distinct_words(prompts: list[str], completions: list[str]) -> list[float]:
    """The share of a text's words that it has not used before; 0 for an empty text."""
    words = [text.split() for text in completions]
    return [len(set(w)) / len(w) if w else 0.0 for w in words]
