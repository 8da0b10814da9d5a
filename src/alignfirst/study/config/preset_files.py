"""Where a study comes from: a preset of this package, a YAML file, plain data; `extends` and `--set` on top."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alignfirst.errors import InputError
from alignfirst.study.config import yaml_io
from alignfirst.study.config.study_config import Name, StudyConfig, from_mappings
from alignfirst.study.config.validation import did_you_mean, plain

Source = str | Path | Mapping[str, Any] | StudyConfig

MAX_EXTENDS = 8
_TEXT_KEYS = ("description", "name", "preset")  # a comma in these is a comma


@dataclass(frozen=True)
class _Layer:
    data: dict[str, Any]
    name: str
    preset: str | None  # the preset of this package that it is, if any
    folder: Path | None  # where a relative `extends` starts


def names() -> list[str]:
    """The presets of this package, by name."""
    found = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return sorted(found)


def load(source: Source, sets: Sequence[str] | Mapping[str, Any] = ()) -> StudyConfig:
    """A study from a preset's name, a YAML file's path, plain data or a config, with keys set on top.

    `sets` is `["align.updates=100", ...]` as on the command line, or a mapping of dotted keys to values.
    Raises InputError with rule, value and cure, naming the file where there is one.
    """
    study = source if isinstance(source, StudyConfig) else _from_layers(source)
    values = sets if isinstance(sets, Mapping) else dict(parse_set(text) for text in sets)
    return study.with_values(values) if values else study


def parse_set(text: str) -> tuple[str, Any]:
    """`a.b=value` as key and value. The value is YAML; commas without brackets make a list too (`beta=0.1,0.3`)."""
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError("--set must be KEY=VALUE", text, "Write for example --set align.updates=100.")
    value = yaml_io.loads_value(value_text, f"--set {key}")
    if isinstance(value, str) and "," in value and key not in _TEXT_KEYS:
        value = yaml_io.loads_value(f"[{value_text}]", f"--set {key}")
    return key, value


def _from_layers(source: str | Path | Mapping[str, Any]) -> StudyConfig:
    layers = list(_layers(source))
    top = layers[0]
    preset = next((layer.preset for layer in layers if layer.preset), None)
    named = {"name": top.name, "preset": preset or top.data.get("name", top.name)}
    inherited = [{k: v for k, v in layer.data.items() if k not in _TEXT_KEYS} for layer in layers[:0:-1]]
    try:
        return from_mappings(named, *inherited, top.data)
    except InputError as e:
        if isinstance(source, Mapping) or top.preset:
            raise
        raise InputError(f"in {source}: {e.rule}", e.value, e.cure) from e


def _layers(source: str | Path | Mapping[str, Any]) -> Iterator[_Layer]:
    """The source and what it extends, outermost first."""
    layer = _named_layer(source, None) if isinstance(source, str | Path) else _Layer(plain(source), "study", None, None)
    for _ in range(MAX_EXTENDS):
        base = layer.data.pop("extends", None)
        yield layer
        if base is None:
            return
        if not isinstance(base, str):
            raise InputError("extends must name a preset or a file", base, f"Choose from {', '.join(names())}.")
        layer = _named_layer(base, layer.folder)
    raise InputError(f"extends must end after {MAX_EXTENDS} studies", "more, or a circle", "Remove one extends.")


def _named_layer(name: str | Path, folder: Path | None) -> _Layer:
    known = names()
    if isinstance(name, str) and name in known:
        data = yaml_io.loads(_folder().joinpath(f"{name}.yaml").read_bytes(), f"preset {name}")
        return _Layer(data, name, name, None)
    path = Path(name) if folder is None else folder / name
    if isinstance(name, str) and path.suffix not in {".yaml", ".yml"} and "/" not in name and not _is_file(path):
        cure = did_you_mean(name, known, f"Choose from {', '.join(known)}.")
        raise InputError("a study must be a preset or a YAML file", name, cure)
    return _Layer(yaml_io.read(path), name_of(path), None, path.parent)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL
        return False


def name_of(path: Path) -> str:
    """A run's name from a file's, where the file does not say one."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:64]
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        return "study"
    return name


def _folder() -> Traversable:
    return files("alignfirst.study.config").joinpath("presets")
