"""The sections of a mixture study; defaults are those of the preset `mog`: the paper's study with a rare target."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from alignfirst.study.config import sections
from alignfirst.study.config.sections import MAX_SAMPLES
from alignfirst.study.config.study_config import Real, Section, StudyConfig, Whole, distinct, option
from alignfirst.study.config.validation import broken

Point = tuple[Real, Real]

# The 3x3 grid without its centre, x outer, y inner.
MODES: tuple[tuple[float, float], ...] = tuple(
    (float(x), float(y)) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)
)
_MODES_TEXT = ", ".join(f"[{x:g}, {y:g}]" for x, y in MODES)
MAX_COMPONENTS = 256


def _mode(point: Point) -> Point:
    if point not in MODES:
        raise broken("{key} must be one of the mode points", list(point), f"Choose from {_MODES_TEXT}.")
    return point


Targets = Annotated[
    tuple[Annotated[Point, AfterValidator(_mode)], ...], Field(max_length=100), AfterValidator(distinct)
]


class PStar(Section):
    """The ground truth: a Gaussian of variance `variance` at every mode point, weighted (any positive scale)."""

    weights: tuple[Real, ...] = (0.20, 0.06, 0.20, 0.06, 0.20, 0.20, 0.06, 0.02)
    targets: Targets = ((1.0, 1.0),)
    variance: Real = option(0.025, "The paper uses 0.025.", ge=1e-3, le=0.25)

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        name, total = "p_star.weights", sum(self.weights)
        if len(self.weights) != len(MODES):
            raise broken(f"{name} must be {len(MODES)} numbers", f"{len(self.weights)}", f"In order: {_MODES_TEXT}.")
        if min(self.weights) < 0 or max(self.weights) > 1e6:
            raise broken(f"{name} must be between 0 and 1e6", list(self.weights), "They are normalised for you.")
        if not total > 0:
            raise broken(f"{name} must have a positive sum", total, "Give at least one mode a weight.")
        for target in self.targets:
            if self.weights[MODES.index(target)] < 1e-6 * total:
                cure = "Without it there is nothing to recover; use a small weight such as 0.001."
                raise broken(f"{name} must give every target at least 1e-6 of the sum", f"less at {target}", cure)
        return self


class Reward(Section):
    """exp(-d^2 / (2 width^2)), d = distance to the nearest target."""

    width: Real = option(0.25, "Neighbouring modes are 1 apart; the paper's scale is 0.25.", ge=0.02, le=5)


class Fit(Section):
    """Expectation-maximisation of a diagonal mixture on samples."""

    components: Whole
    samples: Whole
    restarts: Whole = option(4, ge=1, le=100)
    iterations: Whole = option(100, ge=1, le=10_000)
    tolerance: Real = option(1e-4, "Mean log-likelihood gained per iteration at which to stop, in nats.", gt=0, le=1)
    floor: Real = option(1e-3, "The smallest variance a component may shrink to; 1e-3 is safe.", ge=1e-6, le=1)

    @model_validator(mode="after")
    def _check_components(self) -> Self:
        if self.components > self.samples:
            rule = f"{_section(self)}.components must be at most {_section(self)}.samples ({self.samples})"
            raise broken(rule, self.components, "Draw more samples or use fewer components.")
        return self


class Sft(Fit):
    """The high-recall model, fitted to samples of the ground truth."""

    components: Whole = option(16, ge=1, le=MAX_COMPONENTS)
    samples: Whole = option(10_000, ge=10, le=MAX_SAMPLES)


class Distil(Fit):
    """Fitting the student to samples of the sharpened teacher."""

    selectivity: Real = option(3.0, "1 copies the teacher, 3 is the default.", gt=0, le=100)
    components: Whole = option(4, "The student's capacity; 4 is the default.", ge=1, le=MAX_COMPONENTS)
    samples: Whole = option(4_000, ge=10, le=MAX_SAMPLES)
    rehearsal: Real = option(0.05, "A share of target examples, such as 0.05.", ge=0, le=0.9)


class Align(sections.Align):
    """The optimiser that every alignment algorithm shares."""

    min_sd: Real = option(0.02, "A floor on standard deviations, such as 0.02.", ge=1e-3, le=1)


class Annotator(Section):
    """One who labels a share of the pairs, and rewards targets of their own."""

    targets: Targets
    weight: Real = option(1.0, "Weights are normalised for you.", ge=0, le=1e6)


class Preferences(sections.Preferences):
    """How preference pairs are drawn and labelled."""

    annotators: tuple[Annotator, ...] = option((), max_length=100)

    @model_validator(mode="after")
    def _check_annotators(self) -> Self:
        if self.annotators and not sum(a.weight for a in self.annotators) > 0:
            cure = "Give at least one annotator a positive weight."
            raise broken("preferences.annotators must have weights with a positive sum", 0, cure)
        return self


class MogConfig(StudyConfig):
    """A study in the world of two-dimensional mixtures of Gaussians."""

    world: Literal["mog"] = "mog"
    p_star: PStar = PStar()
    reward: Reward = Reward()
    sft: Sft = Sft()
    distil: Distil = Distil()
    align: Align = Align()
    preferences: Preferences = Preferences()

    @model_validator(mode="after")
    def _check_recipes(self) -> Self:
        sections.check_recipes(self, self.distil.rehearsal * self.distil.samples, self.align.updates)
        return self


def _section(section: Any) -> str:
    return type(section).__name__.lower()


CONFIG = MogConfig
