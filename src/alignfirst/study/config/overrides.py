"""Dotted keys: setting them in plain data, and telling one value from a list of values to vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from alignfirst.errors import InputError
from alignfirst.study.config.validation import did_you_mean

EXAMPLE = "Write for example vary: {distil.selectivity: [1, 3]}."
MAX_POINTS = 10_000  # of the grid of varied keys; each one is validated


def assign(model: type[BaseModel], data: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key (or a whole section) in plain data. One list too many around a value means: vary it."""
    vary = data.setdefault("vary", {})
    head, _, tail = key.partition(".")
    known = depths(model)
    if key == "vary":
        if not isinstance(value, dict):
            raise InputError("vary must map dotted keys to lists of values", value, EXAMPLE)
        for name, item in value.items():
            vary.update({f"{name}.{inner}": x for inner, x in item.items()} if isinstance(item, dict) else {name: item})
    elif head == "vary":
        vary[tail] = value
    elif not tail and isinstance(value, dict) and any(k.startswith(f"{head}.") for k in known):
        for inner, item in value.items():
            assign(model, data, f"{head}.{inner}", item)
    elif key in known and nesting(value) > known[key]:
        vary[key] = value
    else:
        vary.pop(key, None)
        place(data, key, value)


def place(data: dict[str, Any], key: str, value: Any) -> None:
    head, _, tail = key.partition(".")
    if not tail:
        data[key] = value
        return
    section = data.setdefault(head, {})
    if isinstance(section, dict):  # otherwise the section itself is refused
        place(section, tail, value)


def placed(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the data with dotted keys set."""
    copy: dict[str, Any] = undone(data)
    for key, value in values.items():
        place(copy, key, value)
    return copy


def variations(vary: Any, model: type[BaseModel], axes: Sequence[str]) -> dict[str, list[Any]]:
    """`vary` checked as far as it can be without building a study."""
    if not isinstance(vary, Mapping):
        raise InputError("vary must map dotted keys to lists of values", vary, EXAMPLE)
    known = depths(model)
    for key, values in vary.items():
        if key in axes:
            raise InputError("vary must not name an axis", key, f"Put the list under {key}: itself.")
        if key not in known:
            cure = did_you_mean(key, known, f"Keys that can be varied: {', '.join(known)}.")
            raise InputError("vary must name keys that can be varied", key, cure)
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"vary.{key} must be a list of at least one value", values, EXAMPLE)
    points = prod(len(values) for values in vary.values())
    if points > MAX_POINTS:
        cure = "Vary fewer keys at once."
        raise InputError(f"vary must have at most {MAX_POINTS} combinations", points, cure)
    return {key: list(values) for key, values in vary.items()}


@cache
def depths(model: type[BaseModel]) -> dict[str, int]:
    """The keys that can be varied, and how deep lists nest in one value of each (a number 0, points 2)."""
    found: dict[str, int] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, leaf in field.annotation.model_fields.items():
                found[f"{name}.{inner}"] = _depth(leaf.annotation)
    return found


def _depth(annotation: Any) -> int:
    if get_origin(annotation) is Annotated:
        return _depth(get_args(annotation)[0])
    return 1 + _depth(get_args(annotation)[0]) if get_origin(annotation) is tuple else 0


def nesting(value: Any) -> int:
    return 1 + max(map(nesting, value), default=0) if isinstance(value, list) else 0


def undone(value: Any) -> Any:
    """A copy of a value with the models inside it as mappings."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {key: undone(item) for key, item in value.items()}
    return [undone(item) for item in value] if isinstance(value, list | tuple) else value
