"""The paper's chain: a real language model as p_star, models of its architecture trained from scratch on its texts."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`WORLD`, imported on first use; torch comes only once there is something to train."""
    if name != "WORLD":
        raise AttributeError(name)
    from alignfirst.worlds.chain.world import WORLD

    return WORLD
