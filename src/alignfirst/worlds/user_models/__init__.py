"""A user's own models and preference data, through either order."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`WORLD`, imported on first use; torch comes only once there is something to look at."""
    if name != "WORLD":
        raise AttributeError(name)
    from alignfirst.worlds.user_models.world import WORLD

    return WORLD
