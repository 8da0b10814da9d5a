"""The worlds a study can be played in, by name. A new world is one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from alignfirst.errors import InputError
from alignfirst.world import World

WORLDS = {
    "mog": "alignfirst.worlds.mog:WORLD",
    "grammar": "alignfirst.worlds.grammar:WORLD",
    "chain": "alignfirst.worlds.chain:WORLD",
    "hf": "alignfirst.worlds.user_models:WORLD",
}


def get(name: str) -> World:
    """The world of that name; imported only now, for worlds may need heavy libraries.

    Raises InputError for a name that is not in the registry.
    """
    if name not in WORLDS:
        raise InputError(f"world must be one of {', '.join(WORLDS)}", name, "Correct `world:` in the config.")
    module, attribute = WORLDS[name].split(":")
    return cast(World, getattr(import_module(module), attribute))
