"""YAML in and out for studies: plain data only, small, and refused with a line number where it is not clean.

PyYAML's events are read here, not its objects: no tags, no aliases, no merge keys, hence nothing that a file could
construct or multiply. Scalars are YAML 1.2's (`1e-5` is a number, `yes` and `1:30` are text), as people expect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alignfirst.errors import InputError, shorten

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000
MAX_SCALAR = 2_000
MAX_DIGITS = 19  # of an integer: more is no count, and int() of thousands of digits is slow

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,6})?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
# libyaml where PyYAML was built with it: ten times faster, the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError, naming the line, for anything but plain data within the caps."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        reason = getattr(e, "strerror", None) or str(e)
        raise InputError("a study file must be readable", f"{path}: {reason}", "Check the path.") from e
    return loads(data, str(path))


def loads(data: bytes | str, source: str = "the text") -> dict[str, Any]:
    """The mapping in a YAML text; `source` is named in errors."""
    value = loads_value(data, source)
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        rule = f"{shorten(source)} must hold a mapping of keys to values"
        raise InputError(rule, found, "Start with 'extends: mog'.")
    return value


def loads_value(data: bytes | str, source: str = "the text") -> Plain:
    """Any one YAML value: a mapping, a list or a scalar."""
    text = _decode(data, source)
    try:
        return _Reader(text, source).document()
    except yaml.YAMLError as e:
        raise _syntax_error(e, text, source) from e


def dumps(data: dict[str, Any]) -> str:
    """Deterministic YAML that `loads` reads back as the same data. Short lists stand on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _decode(data: bytes | str, source: str) -> str:
    if isinstance(data, str):  # surrogates (an argument that was not UTF-8) are refused below
        data = data.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        cure = "A study needs a few lines; put data elsewhere."
        raise InputError(
            f"{shorten(source)} must be at most {MAX_BYTES // 1024} KB", f"more than {MAX_BYTES} bytes", cure
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise InputError(
            f"{shorten(source)} must be UTF-8 text", f"byte 0x{data[e.start]:02x} in line {line}", "Save it as UTF-8."
        ) from e


def _syntax_error(e: yaml.YAMLError, text: str, source: str) -> InputError:
    mark = getattr(e, "problem_mark", None)
    where = shorten(source) if mark is None else f"{shorten(source)} line {mark.line + 1}"
    if mark is not None:
        [line] = text.split("\n")[mark.line : mark.line + 1] or [""]
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return InputError(f"{where} must be indented with spaces", "a tab", "Replace the tab by two spaces.")
    problem = getattr(e, "problem", None) or getattr(e, "reason", None) or "a character that YAML does not allow"
    return InputError(f"{where} must be valid YAML", str(problem), "See `alignfirst show mog` for an example.")


class _Reader:
    """Builds plain data from events, counting as it goes; it stops at the first thing that is not plain."""

    def __init__(self, text: str, source: str) -> None:
        self.source, self.nodes = source, 0
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))

    def document(self) -> Plain:
        value: Plain = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.refuse(event, "must hold one document", "a second one after '---'", "Split the file.")
                value = self.node(next(self.events), 1)
        return value

    def node(self, event: Any, depth: int) -> Plain:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.refuse(event, f"must hold at most {MAX_NODES} values", "more", "A study needs a few dozen.")
        if depth > MAX_DEPTH:
            raise self.refuse(event, f"must nest at most {MAX_DEPTH} deep", "more", "See `alignfirst show mog`.")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self.refuse(event, "must not use anchors (&) or aliases (*)", event.anchor, "Write the value out.")
        if event.tag is not None and event.tag != "!":
            raise self.refuse(event, "must not use tags", event.tag, "Write plain text, numbers, lists and mappings.")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(event, depth + 1))
            return items
        return self.mapping(depth)

    def mapping(self, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.refuse(event, "must have text as keys", "a list, a mapping or an alias", "Name the key.")
            self.node(event, depth + 1)  # the same caps hold for keys
            key = event.value
            line = self.line(event)
            if key in lines:
                given = f"{shorten(key, 60)!r} in line {lines[key]} and in line {line}"
                raise self.refuse(event, "must have every key once", given, "Remove one of them.")
            lines[key] = line
            data[key] = self.node(next(self.events), depth + 1)
        return data

    def scalar(self, event: Any) -> Plain:
        text: str = event.value
        if len(text) > MAX_SCALAR:
            raise self.refuse(event, f"must have values of at most {MAX_SCALAR} characters", text, "Shorten it.")
        if not event.implicit[0]:  # quoted, hence text
            return text
        try:
            return resolve(text)
        except ValueError:
            raise self.refuse(
                event, f"must have integers of at most {MAX_DIGITS} digits", text, "Write 1e30."
            ) from None

    @staticmethod
    def line(event: Any) -> int:
        return int(event.start_mark.line) + 1

    def refuse(self, event: Any, rule: str, value: object, cure: str) -> InputError:
        return InputError(f"{shorten(self.source)} line {self.line(event)} {rule}", value, cure)


def resolve(text: str) -> str | int | float | bool | None:
    """A plain (unquoted) scalar by YAML 1.2's core rules. ValueError for an integer of more than MAX_DIGITS digits."""
    if text in _WORDS:
        word: bool | float | None = _WORDS[text]
        return word
    if _INT.fullmatch(text):
        if len(text.lstrip("+-0")) > MAX_DIGITS:
            raise ValueError(text)
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Dumper(yaml.SafeDumper):
    """Quotes text that would be read as something else or is not printable; never writes anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = isinstance(resolve(text), str) and text.isprintable()
    except ValueError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)
