"""Sections that worlds share; a world gives its own defaults and adds its own keys by subclassing them."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Strict, model_validator

from alignfirst.errors import InputError
from alignfirst.plugins import REWARD_FUNCTIONS
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import Real, Section, StudyConfig, Whole, known, option
from alignfirst.study.config.validation import broken
from alignfirst.theory.drawing_filters import parse_filter
from alignfirst.theory.schedules import CONSTANT, SCHEDULES
from alignfirst.theory.trl_limits import TRL_VERSION, check_trl

MAX_SAMPLES = 1_000_000
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


Schedule = Annotated[str, Strict(), AfterValidator(lambda name: known(name, SCHEDULES, "a schedule"))]


def _filter(text: str) -> str:
    try:
        parse_filter(text)
    except InputError as e:
        raise broken("{key}: " + e.rule, text, e.cure) from None
    return text


Filter = Annotated[str, Strict(), AfterValidator(_filter)] | None  # of drawn text: NAME=NUMBER, null for none


class Align(Section):
    """The optimiser that every alignment algorithm shares."""

    updates: Whole = option(600, ge=1, le=1_000_000)
    learning_rate: Real = option(0.02, "Adam's step; 0.02 is the default.", gt=0, le=1)
    schedule: Schedule = CONSTANT
    samples: Whole = option(256, ge=4, le=16_384)
    group_size: Whole = option(8, "Groups compare samples with each other: at least 2.", ge=2)
    ppo_epochs: Whole = option(4, ge=1, le=100)
    reference: Literal["start", "sft"] = "start"

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        if self.samples % 2:
            raise broken("align.samples must be even", self.samples, "Pairs are drawn two by two; use 256.")
        if self.samples % self.group_size:
            rule = f"align.group_size must divide align.samples ({self.samples})"
            raise broken(rule, self.group_size, "Use for example 8 and 256.")
        return self


class Preferences(Section):
    """How preference pairs are drawn and labelled."""

    labels: Literal["bradley-terry", "hard"] = "bradley-terry"
    scale: Real = option(1.0, "P(winner) = sigmoid(scale * reward gap); 1 is the default.", gt=0, le=1e3)
    flip: Real = option(0.0, "At 0.5 labels say nothing; below, they are noisy.", ge=0, lt=0.5)
    pairs: Whole = option(4_096, ge=2, le=MAX_SAMPLES)
    source: Literal["start", "sft"] = "start"


class TextAlign(Align):
    """Alignment of language models: by this package's trainer, or by TRL's where that does the same thing."""

    trainer: Literal["native", "trl"] = "native"
    level: Literal["sequence", "token"] = "sequence"
    kl_in: Literal["reward", "loss"] = "reward"

    @property
    def trained_by(self) -> str:
        """The trainer as a part of what a node's key digests."""
        return self.trainer if self.trainer == "native" else f"{self.trainer}-{TRL_VERSION}"


def names_function(name: str) -> bool:
    """Whether it names a reward function: `module:function`, or that of a plug-in."""
    return _FUNCTION.fullmatch(name) is not None or name in REWARD_FUNCTIONS


def check_heads(model: Section, hidden: int, heads: int) -> str:
    """Refuses heads that rotary positions cannot turn; returns the section's name."""
    name = type(model).__name__.lower()
    if hidden % (2 * heads):
        rule = f"{name}.hidden must be a multiple of twice {name}.heads ({heads})"
        raise broken(rule, hidden, "Rotary positions turn pairs of numbers within a head.")
    return name


def check_trainer(study: StudyConfig, align: TextAlign) -> None:
    """Refuses before any work what TRL's stable trainers cannot do, or would do differently."""
    if align.trainer == "trl":
        for name in study.algorithms:
            check_trl(name, align.level, align.kl_in)


def check_recipes(study: StudyConfig, rehearsed: float, updates: int) -> None:
    """Every stage of every recipe has something to do: `rehearsed` target examples mixed in, `updates` to share."""
    stages = [stage for name in study.recipes for stage in RECIPES[name]]
    if any(stage.rehearsed for stage in stages) and rehearsed < 1:
        rule = "distil.rehearsal must mix in at least one example for a recipe that rehearses"
        raise broken(rule, study.value("distil.rehearsal"), "Use 0.05, or leave that recipe out.")
    shares = [stage.updates for stage in stages if stage.kind == "align"]
    if shares and min(shares) * updates < 1:
        rule = "align.updates must leave every align stage at least one update"
        raise broken(rule, updates, f"Use at least {int(1 / min(shares))}.")
