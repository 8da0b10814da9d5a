"""The config of a study: what is common to all worlds, and how keys are set, varied and checked.

A world adds its own sections by subclassing `StudyConfig`; `worlds.WORLDS` says in which module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from alignfirst import plugins
from alignfirst.errors import InputError
from alignfirst.study.config import overrides
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.validation import broken, did_you_mean, input_error, plain
from alignfirst.theory.beta import checked_beta
from alignfirst.worlds import WORLDS

if TYPE_CHECKING:
    from alignfirst.theory.objectives import Algorithm

Config = TypeVar("Config", bound="StudyConfig")

MAX_CELLS = 1_000_000
MAX_SEED = 2**32 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}

Real = Annotated[float, Strict(), AllowInfNan(False), AfterValidator(lambda x: x + 0.0)]  # + 0.0: no minus zero
Whole = Annotated[int, Strict()]


class Section(BaseModel):
    """Frozen, and closed: an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def option(default: Any, cure: str | None = None, **bounds: Any) -> Any:
    """A field with its bounds and, where the default is not cure enough, what to do about a bad value."""
    return Field(default, json_schema_extra=None if cure is None else {"cure": cure}, **bounds)


def _safe_name(name: Any) -> str:
    cure = "Use up to 64 letters, digits, '.', '_' or '-', such as my-study."
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise broken("{key} must be a plain name that can name a folder", name, cure)
    if name.partition(".")[0].lower() in _RESERVED:
        raise broken("{key} must not be a name that some systems reserve", name, cure)
    return name


def one_line(text: str) -> str:
    """Refuses line breaks and control characters."""
    if not text.isprintable():
        raise broken("{key} must be one line of printable text", text, "Remove line breaks and control characters.")
    return text


def listed(value: Any) -> Any:
    """One value stands for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _every(members: Callable[[], plugins.Registry[Any]]) -> Callable[[Any], Any]:
    """`all` stands for every member that comes with this package."""
    return lambda value: tuple(members().builtin) if value == "all" else listed(value)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuses an empty list, and a value given twice."""
    if not values:
        raise broken("{key} must have at least one value", "an empty list", "Name at least one.")
    seen: list[Any] = []
    for value in values:
        if value in seen[-1000:]:
            raise broken("{key} must name each value once", value, "Remove the repetition.")
        seen.append(value)
    return values


def known(name: str, members: Collection[str], what: str) -> str:
    """The name of a member, such as "a recipe"; refused where there is none of it."""
    if name not in members:
        cure = did_you_mean(name, members, f"Choose from {', '.join(members)}.")
        raise broken(f"{{key}} must be {what}", name, cure)
    return name


def _algorithms() -> plugins.Registry[Algorithm]:
    from alignfirst.theory.objectives import ALGORITHMS  # imports SciPy; `alignfirst --version` need not

    return ALGORITHMS


def _beta(value: float) -> float:
    try:
        return checked_beta(value)
    except InputError as e:
        raise broken(e.rule, e.value, e.cure) from None


def _seeds(value: Any) -> int | tuple[int, ...]:
    if isinstance(value, list | tuple):
        for seed in value:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
                raise broken(f"seeds must be whole numbers from 0 to {MAX_SEED}", seed, "Use for example [0, 1, 2].")
        if len(set(value)) < len(value):
            raise broken("seeds must name each seed once", value, "A seed counted twice is no new evidence.")
        if not value:
            raise broken("seeds must have at least one seed", "an empty list", "Intervals need at least 5.")
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise broken("seeds must be a count from 1 to 100000, or a list", value, "Use 20, or [0, 1, 2].")
    return value


Name = Annotated[str, PlainValidator(_safe_name)]
_Text = Annotated[str, Strict()]
Axis = (BeforeValidator(listed), AfterValidator(distinct))
Recipe = Annotated[_Text, AfterValidator(lambda name: known(name, RECIPES, "a recipe"))]
_Algorithm = Annotated[_Text, AfterValidator(lambda name: known(name, _algorithms(), "an algorithm"))]
Recipes = Annotated[tuple[Recipe, ...], Field(max_length=100), *Axis, BeforeValidator(_every(lambda: RECIPES))]
Algorithms = Annotated[tuple[_Algorithm, ...], Field(max_length=100), *Axis, BeforeValidator(_every(_algorithms))]
Betas = Annotated[tuple[Annotated[Real, AfterValidator(_beta)], ...], Field(max_length=1000), *Axis]
Seeds = Annotated[int | tuple[int, ...], PlainValidator(_seeds)]


class StudyConfig(Section):
    """The axes of a study. Its cells are recipes x algorithms x beta x seeds x every combination of `vary`.

    `vary` maps a dotted key to the values it takes; the key's own field then holds the first of them.
    """

    axes: ClassVar[tuple[str, ...]] = ("recipes", "algorithms", "beta", "seeds")

    name: Name = "study"
    preset: Name = "study"
    description: Annotated[_Text, AfterValidator(one_line)] = option("", max_length=500)
    world: str
    recipes: Recipes = ("align-distil", "distil-align")
    algorithms: Algorithms = option("all", validate_default=True)
    beta: Betas = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    seeds: Seeds = 20
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _check_variations(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Every combination must be a valid study. Values are kept as their fields read them (1 becomes 1.0)."""
        if not isinstance(data, Mapping) or not data.get("vary"):
            return handler(data)
        rest = {key: value for key, value in data.items() if key != "vary"}
        vary = overrides.variations(data["vary"], cls, cls.axes)
        points = [dict(zip(vary, values, strict=True)) for values in product(*vary.values())]
        study = handler(overrides.placed(rest, points[0]))
        read: dict[str, dict[str, Any]] = {key: {} for key in vary}
        for point in points:
            try:
                at_point = cls.model_validate(overrides.placed(rest, point))
            except ValidationError as e:
                raise input_error(e, cls) from e
            for key, value in point.items():
                read[key][repr(value)] = at_point.value(key)
        for key, values in read.items():
            if len({repr(value) for value in values.values()}) < len(vary[key]):
                raise InputError(f"vary.{key} must name each value once", vary[key], "Remove the repetition.")
        study.__dict__["vary"] = {key: tuple(values.values()) for key, values in read.items()}
        return study

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        cells = len(self.recipes) * len(self.algorithms) * len(self.beta) * len(self.seed_list)
        cells *= prod(len(values) for values in self.vary.values())
        if cells > MAX_CELLS:
            raise InputError(f"a study must have at most {MAX_CELLS} cells", cells, "Split it, or name fewer values.")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def points(self) -> list[dict[str, Any]]:
        """Every combination of the varied keys, the last one fastest; `[{}]` where nothing is varied."""
        return [dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())]

    def value(self, key: str) -> Any:
        """The value of a dotted key as plain data."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return plain(overrides.undone(value))

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """This study with dotted keys set. A list for a key that takes one value varies it; one value ends a varying.

        Raises InputError for an unknown key or a bad value.
        """
        data = self.resolved()
        for key, value in plain(values).items():
            overrides.assign(type(self), data, key, value)
        return _validated(type(self), data)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value as plain data, in a fixed order; `from_mapping` reads it back as this study."""
        data: dict[str, Any] = plain(self.model_dump())
        return data


def from_mapping(data: Mapping[str, Any]) -> StudyConfig:
    """A study from (nested or dotted) plain data. Raises InputError with rule, value and cure."""
    return from_mappings(data)


def from_mappings(*layers: Mapping[str, Any]) -> StudyConfig:
    """The same from several, each laid over those before it: keys replace, sections and `vary` merge."""
    layers = tuple(plain(layer) for layer in layers)
    world = next((layer["world"] for layer in reversed(layers) if "world" in layer), "mog")
    model = model_for(world)
    data: dict[str, Any] = {"world": world}
    for layer in layers:
        _once(layer)
        for key in sorted(layer, key=lambda key: key == "vary"):  # last: it takes over the keys that it names
            overrides.assign(model, data, key, layer[key])
    data.setdefault("preset", data.get("name", "study"))
    return _validated(model, data)


def _once(data: Mapping[str, Any]) -> None:
    """Refuses a key that is given both dotted and in its section."""
    for key, value in data.items():
        for inner in value if isinstance(value, dict) else ():
            if f"{key}.{inner}" in data:
                raise InputError("a key must be given once", f"{key}.{inner} twice", "Remove one of the two.")


def model_for(world: Any) -> type[StudyConfig]:
    """The config class of a world. Raises InputError, naming the nearest one."""
    if not isinstance(world, str) or world not in WORLDS:
        cure = did_you_mean(str(world), WORLDS, f"Choose from {', '.join(WORLDS)}.")
        raise InputError("world must be a known one", world, cure)
    model: type[StudyConfig] = import_module(f"alignfirst.study.config.{WORLDS[world]}_sections").CONFIG
    return model


def _validated(model: type[Config], data: dict[str, Any]) -> Config:
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise input_error(e, model) from e
