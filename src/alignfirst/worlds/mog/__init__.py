"""Mixtures of Gaussians in two dimensions: the smallest world in which order can matter."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`WORLD`, imported on first use: the compiled kernel takes most of a second to load."""
    if name != "WORLD":
        raise AttributeError(name)
    from alignfirst.worlds.mog.world import WORLD

    return WORLD
