"""From pydantic's complaint to the sentence a person needs: rule, value, cure, and the nearest known key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from alignfirst.errors import InputError, shorten

BROKEN: Final = "broken_rule"
_SEE = "See `alignfirst show mog` for every key and its default."
_MAX_INT = 2**63
_MAX_DEPTH = 12
_MAX_VALUES = 200_000
_MAX_TEXT = 2_000


def broken(rule: str, value: object, cure: str) -> PydanticCustomError:
    """What a validator raises. `{key}` in the rule becomes the dotted name of the field it is raised for."""
    context: dict[str, Any] = {"rule": rule, "value": value, "cure": cure}
    return PydanticCustomError(BROKEN, "a rule is broken", context)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, also by its last part alone (`selectivty` finds `distil.selectivity`)."""
    name = name[:80].lower()

    def likeness(candidate: str) -> float:
        last = SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2].lower()).ratio()
        return max(SequenceMatcher(None, name, candidate.lower()).ratio(), last - 0.01)

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    found = nearest(name, known)
    return otherwise if found is None else f"Did you mean {found}?"


def input_error(error: ValidationError, model: type[BaseModel]) -> InputError:
    """The first complaint as an InputError; a misspelt key comes first, for it often explains the others."""
    details = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    key = dotted(details["loc"])
    if details["type"] == "extra_forbidden":
        return InputError("every key must be a known one", key or "an empty one", did_you_mean(key, keys(model), _SEE))
    if details["type"] == BROKEN:
        context = details["ctx"]
        return InputError(context["rule"].replace("{key}", key), context["value"], context["cure"])
    rule = f"{key or 'the study'} must {_requirement(details)}"
    value = details["input"]
    is_text = isinstance(value, str) and details["type"] != "literal_error"  # "got 3" would hide that it is text
    return InputError(rule, f"the text {shorten(value)!r}" if is_text else value, _cure(details["loc"], model))


def dotted(loc: tuple[int | str, ...]) -> str:
    """("p_star", "targets", 0) -> "p_star.targets[0]"."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def keys(model: type[BaseModel]) -> list[str]:
    """Every dotted key of a config, sections before their own keys."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names.extend(f"{name}.{inner}" for inner in keys(field.annotation))
    return names


_REQUIREMENTS = {  # by the type of pydantic's complaint; names in braces are of its context
    "greater_than": "be > {gt:g}",
    "greater_than_equal": "be >= {ge:g}",
    "less_than": "be < {lt:g}",
    "less_than_equal": "be <= {le:g}",
    "finite_number": "be a finite number",
    "string_type": "be text",
    "literal_error": "be one of {expected}",
    "missing": "be given",
    "too_short": "have at least {min_length} value(s)",
    "too_long": "have at most {max_length} values",
    **dict.fromkeys(("float_type", "float_parsing"), "be a number"),
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "be a whole number"),
    **dict.fromkeys(("tuple_type", "list_type"), "be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "be a mapping of keys to values"),
}


def _requirement(details: ErrorDetails) -> str:
    known = _REQUIREMENTS.get(details["type"])
    return f"be valid ({shorten(details['msg'])})" if known is None else known.format_map(details.get("ctx", {}))


def _cure(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """The cure that the field itself carries, or its default as an example."""
    inner: Any = model
    field = None
    for part in loc:
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)) or part not in inner.model_fields:
            break
        field = inner.model_fields[str(part)]
        inner = field.annotation
    if field is None:
        return _SEE
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "cure" in extra:
        return str(extra["cure"])
    default = field.get_default(call_default_factory=True, validated_data={})
    return _SEE if field.is_required() or isinstance(default, BaseModel) else f"The default is {json.dumps(default)}."


def plain(value: Any) -> Any:
    """A copy as plain data (dict, list, str, int, float, bool, None). Arrays become lists; anything else is refused."""
    return _Plain().copy(value, "", 0)


class _Plain:
    def __init__(self) -> None:
        self.count = 0

    def copy(self, value: Any, where: str, depth: int) -> Any:
        self.count += 1
        if self.count > _MAX_VALUES or depth > _MAX_DEPTH:
            limits = f"at most {_MAX_VALUES} values, nested at most {_MAX_DEPTH} deep"
            raise InputError(f"a study must hold {limits}", "more", "A study needs a few dozen.")
        if hasattr(value, "tolist") and not isinstance(value, type):  # NumPy arrays and scalars
            value = value.tolist()
        if value is None or isinstance(value, bool | float):
            return value
        label = where or "the study"
        if isinstance(value, int):
            if abs(value) >= _MAX_INT:  # not shown: printing a huge integer can itself fail
                raise InputError(f"{label} must fit 64 bits", f"an integer of {value.bit_length()} bits", _SEE)
            return int(value)
        if isinstance(value, str):
            return _text(value, label)
        if isinstance(value, list | tuple):
            return [self.copy(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        if isinstance(value, Mapping):
            return {_key(k): self.copy(item, _inside(where, k), depth + 1) for k, item in value.items()}
        raise InputError(f"{label} must be plain data", type(value).__name__, "Give text, numbers, lists or mappings.")


def _inside(where: str, key: Any) -> str:
    return f"{where}.{shorten(_key(key), 60)}".removeprefix(".")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InputError("keys must be text", type(key).__name__, _SEE)
    return _text(key, "a key")


def _text(value: str, where: str) -> str:
    if len(value) > _MAX_TEXT:
        raise InputError(f"{where} must be at most {_MAX_TEXT} characters", value, "Shorten it.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise InputError(f"{where} must be Unicode text", value, "Remove the unpaired surrogate.") from e
    return str(value)
