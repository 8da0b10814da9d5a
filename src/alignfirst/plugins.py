"""What installed packages add to a registry, by entry points.

A plug-in runs only when something names it: a registry looks for a name that it does not know among the entry points
of its group, and imports that one. Installing a package is what gives its author that trust; no model, data set or
store can name one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from alignfirst.errors import InputError
from alignfirst.process_environment import WORKER
from alignfirst.user_code import contained, try_import

Member = TypeVar("Member")
ALGORITHMS, RECIPES, REWARDS = "alignfirst.algorithms", "alignfirst.recipes", "alignfirst.rewards"


class Registry(Mapping[str, Member], Generic[Member]):
    """Members by name: those that come with this package, then those that others add to the group.

    A plug-in cannot take the name of a built-in member. `noun` says what a member is, `fits` whether something is one.
    Raises InputError where a plug-in cannot be imported, or is no member.
    """

    def __init__(
        self, group: str, builtin: Mapping[str, Member], noun: str = "function", fits: Callable[[Any], bool] = callable
    ) -> None:
        self.group, self.builtin, self.noun, self.fits = group, dict(builtin), noun, fits
        self._loaded: dict[str, Member] = {}

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return {p.name: p for p in entry_points(group=self.group) if p.name not in self.builtin}

    def __getitem__(self, name: str) -> Member:
        if name in self.builtin:
            return self.builtin[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(self._points[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a member; imports nothing."""
        return name in self.builtin or name in self._points

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from sorted(self._points)

    def __len__(self) -> int:
        return len(self.builtin) + len(self._points)

    def origin(self, name: str) -> str | None:
        """`package==version` of a plug-in, which is part of what it computes; None for a built-in member."""
        if name in self.builtin:
            return None
        package = self._points[name].dist
        return "unknown" if package is None else f"{package.name}=={package.version}"

    def spec(self, name: str) -> str:
        """A plug-in's `module:attribute`. Raises KeyError for a name that no package adds."""
        return self._points[name].value

    def _load(self, point: EntryPoint) -> Member:
        what = f"{point.name} ({point.value}, {self.origin(point.name)})"
        try:
            if WORKER not in os.environ:
                try_import(point.value.partition(":")[0])
            with contained():
                found = point.load()
        except Exception as e:  # whatever somebody else's module raises while it is imported
            cure = f"{type(e).__name__}: {e}. Mend or remove that package."
            raise InputError(f"a plug-in of {self.group} must be importable", what, cure) from e
        if not self.fits(found):
            cure = f"It is a {type(found).__name__}; see docs/plugins.md."
            raise InputError(f"a plug-in of {self.group} must be a {self.noun}", what, cure)
        member: Member = found
        return member


REWARD_FUNCTIONS: Registry[Callable[[list[str], list[str]], Any]] = Registry(REWARDS, {})


def reward_settings(kind: str) -> dict[str, str]:
    """What identifies a reward function: `module:function` as it is, a plug-in's name with where it comes from."""
    if kind not in REWARD_FUNCTIONS:
        return {"kind": kind}
    return {"kind": REWARD_FUNCTIONS.spec(kind), "plugin": str(REWARD_FUNCTIONS.origin(kind))}
