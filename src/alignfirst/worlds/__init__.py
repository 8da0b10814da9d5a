"""The worlds a study can be played in. A new world is one line here.

Its package is in this one, with a `WORLD` in `world.py`; its config is the `CONFIG` of `<package>_sections` in
study/config.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.world import World

WORLDS = {  # name in a study -> package
    "mog": "mog",
    "grammar": "grammar",
    "chain": "chain",
    "hf": "user_models",
}


def get(name: str) -> World:
    """The world of that name; imported only now, for worlds may need heavy libraries.

    Raises InputError for a name that is not in the registry.
    """
    if name not in WORLDS:
        raise InputError(f"world must be one of {', '.join(WORLDS)}", name, "Correct `world:` in the config.")
    return cast("World", import_module(f"alignfirst.worlds.{WORLDS[name]}.world").WORLD)
