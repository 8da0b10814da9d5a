"""Sections that worlds share; a world gives its own defaults and adds its own keys by subclassing them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import Real, Section, StudyConfig, Whole, option
from alignfirst.study.config.validation import broken

MAX_SAMPLES = 1_000_000
TRL_VERSION = 2  # of trainings by TRL: 2 takes pairs in the native trainer's order
# What TRL's stable trainers do: where their KL is, and on what. DPO's has no such choice.
TRL: dict[str, tuple[str | None, str | None]] = {
    "dpo-offline": (None, None),
    "rloo": ("sequence", "reward"),
    "grpo": ("token", "loss"),
}


class Align(Section):
    """The optimiser that every alignment algorithm shares."""

    updates: Whole = option(600, ge=1, le=1_000_000)
    learning_rate: Real = option(0.02, "Adam's step; 0.02 is the default.", gt=0, le=1)
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


def check_trainer(study: StudyConfig, align: TextAlign) -> None:
    """Refuses before any work what TRL's stable trainers cannot do, or would do differently."""
    if align.trainer != "trl":
        return
    given = f"level: {align.level}, kl_in: {align.kl_in}"
    for name in study.algorithms:
        if name not in TRL:
            rule = f"algorithms must be among {', '.join(TRL)} where align.trainer is trl"
            raise broken(rule, name, "Use the native trainer for the others.")
        level, kl_in = TRL[name]
        if level is not None and (align.level, align.kl_in) != (level, kl_in):
            cure = "That is what TRL does; or use the native trainer."
            raise broken(f"{name} of TRL must have align.level: {level} and align.kl_in: {kl_in}", given, cure)


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
