"""The sections of a study of the paper's chain: a real language model as ground truth, models of its kind from scratch.

Defaults are the sizes of the paper: SmolLM2-1.7B, 360M, and 135M for the student and the model that rewards.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from alignfirst.study.config import sections
from alignfirst.study.config.study_config import (
    Algorithms,
    Betas,
    Real,
    Recipes,
    Section,
    Seeds,
    StudyConfig,
    Whole,
    option,
)
from alignfirst.study.config.validation import broken

MAX_TEXTS = 1_000_000_000


def _text(value: str) -> str:
    if not value:
        raise broken("{key} must have a character", value, "The paper's prompt is The.")
    return value


class PStar(Section):
    """The ground truth: a language model's continuations of one prompt."""

    source: Annotated[str, AfterValidator(_text)] = option("HuggingFaceTB/SmolLM2-1.7B", max_length=500)
    revision: str | None = option(None, max_length=200)
    prompt: Annotated[str, AfterValidator(_text)] = option("The", max_length=1000)
    length: Whole = option(512, "Tokens of a text at most.", ge=2, le=100_000)
    ends: bool = option(True)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    keep: Whole | None = option(None, "Tokens that are kept, such as 2048; null keeps all.", ge=8, le=1_000_000)
    counted: Whole = option(1_000, "Texts that say which tokens are used most.", ge=1, le=MAX_TEXTS)
    samples: Whole = option(10_000_000, ge=8, le=MAX_TEXTS)
    held_out: Whole = option(10_000, ge=8, le=MAX_TEXTS)
    parameters: Whole = option(1_711_376_384, ge=1)
    hidden: Whole = option(2048, ge=1)
    layers: Whole = option(24, ge=1)
    vocabulary: Whole = option(49_152, ge=8, le=2**31)
    prompt_tokens: Whole = option(1, ge=1, le=1000)

    @model_validator(mode="after")
    def _check_kept(self) -> Self:
        if self.keep is not None and self.keep > self.vocabulary:
            rule = f"p_star.keep must be at most p_star.vocabulary ({self.vocabulary})"
            raise broken(rule, self.keep, "Use null to keep all.")
        if self.keep is not None and self.counted * self.length < self.keep:
            rule = f"p_star.counted texts of {self.length} tokens must use p_star.keep ({self.keep}) tokens"
            raise broken(rule, self.counted, "Count more texts.")
        return self


class Fitted(Section):
    """A Llama-style model trained from scratch with AdamW; the checkpoint is chosen by held-out text."""

    hidden: Whole = option(576, ge=4, le=16_384)
    layers: Whole = option(30, ge=1, le=256)
    heads: Whole = option(9, ge=1, le=256)
    kv_heads: Whole = option(3, ge=1, le=256)
    intermediate: Whole = option(1536, ge=4, le=65_536)
    epochs: Whole = option(5, ge=1, le=10_000)
    batch: Whole = option(256, ge=1, le=65_536)
    learning_rate: Real = option(5e-4, "AdamW's step; 5e-4 is the paper's.", gt=0, le=1)
    checks: Whole = option(20, "Looks at held-out text.", ge=1, le=10_000)
    patience: Whole | None = option(None, "Checks without a better one; null trains to the end.", ge=1, le=10_000)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        name = sections.check_heads(self, self.hidden, self.heads)
        if self.heads % self.kv_heads:
            rule = f"{name}.kv_heads must divide {name}.heads ({self.heads})"
            raise broken(rule, self.kv_heads, "Queries share keys and values in groups of one size.")
        return self


class Target(Fitted):
    """The model that rewards: distilled from p_star at a low temperature. T is what scores at least `mass` rarely."""

    temperature: Real = option(0.6, "Of p_star, below 1 for typical text.", gt=0, le=4)
    samples: Whole = option(1_000_000, ge=8, le=MAX_TEXTS)
    held_out: Whole = option(10_000, ge=8, le=MAX_TEXTS)
    mass: Real = option(0.03, "The share of p_star's text that counts as target.", gt=0, lt=0.5)
    calibrated: Whole = option(10_000, "Texts of p_star that set the scale and T.", ge=8, le=MAX_TEXTS)


class Sft(Fitted):
    """The high-recall model, trained on `p_star.samples`."""

    hidden: Whole = option(960, ge=4, le=16_384)
    layers: Whole = option(32, ge=1, le=256)
    heads: Whole = option(15, ge=1, le=256)
    kv_heads: Whole = option(5, ge=1, le=256)
    intermediate: Whole = option(2560, ge=4, le=65_536)


class Distil(Fitted):
    """The student, and what it learns from a teacher."""

    temperature: Real = option(0.8, "The teacher's: 1 copies it, 0.8 is the default.", gt=0, le=4)
    filter: sections.Filter = None
    samples: Whole = option(10_000_000, ge=8, le=MAX_TEXTS)
    held_out: Whole = option(10_000, ge=8, le=MAX_TEXTS)
    rehearsal: Real = option(0.05, "A share of target examples, such as 0.05.", ge=0, le=0.9)


class Align(sections.TextAlign):
    """The optimiser that every alignment algorithm shares; by default the KL is that of whole sequences."""

    updates: Whole = option(1_000, ge=1, le=1_000_000)
    learning_rate: Real = option(1e-5, "AdamW's step; 1e-5 is the default.", gt=0, le=1)
    samples: Whole = option(256, ge=4, le=16_384)


class Preferences(sections.Preferences):
    """How preference pairs are drawn and labelled."""

    scale: Real = option(5.0, "P(winner) = sigmoid(scale * reward gap); 5 is the default.", gt=0, le=1e3)
    pairs: Whole = option(100_000, ge=2, le=sections.MAX_SAMPLES)


class Measure(Section):
    """Texts of each set that a model is measured on, and of how many of its own p_star is asked."""

    samples: Whole = option(100_000, "Standard errors fall with the square root.", ge=8, le=MAX_TEXTS)
    scored: Whole = option(100_000, "At most measure.samples.", ge=8, le=MAX_TEXTS)


class ChainConfig(StudyConfig):
    """A study of the paper's chain."""

    world: Literal["chain"] = "chain"
    recipes: Recipes = ("align-distil", "distil-align", "align-only", "distil-only")
    algorithms: Algorithms = ("ppo", "dpo-offline", "dpo-online", "rloo", "grpo")
    beta: Betas = (0.05,)
    seeds: Seeds = 5
    scale: Real = option(1.0, "All counts are multiplied with it: 0.01 is a hundredth of the study.", gt=0, le=1)
    shard: Whole = option(20_000, "Texts in one shard: what an interruption can lose.", ge=1, le=10_000_000)
    chunk: Whole | None = option(None, "Texts in one forward pass of training; null for all.", ge=1, le=65_536)
    p_star: PStar = PStar()
    target: Target = Target()
    sft: Sft = Sft()
    distil: Distil = Distil()
    align: Align = Align()
    preferences: Preferences = Preferences()
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _check_recipes(self) -> Self:
        sections.check_trainer(self, self.align)
        sections.check_recipes(self, self.distil.rehearsal * self.distil.samples * self.scale, self.align.updates)
        for name, section in (("sft", self.sft), ("distil", self.distil), ("target", self.target)):
            if self.chunk is not None and section.batch % self.chunk:
                raise broken(f"chunk must divide {name}.batch ({section.batch})", self.chunk, "Use for example 8.")
        if self.chunk is not None and (self.align.samples % self.chunk or self.chunk % self.align.group_size):
            rule = f"chunk must divide align.samples ({self.align.samples}), groups of {self.align.group_size} whole"
            raise broken(rule, self.chunk, "Groups and pairs stay together in a chunk.")
        return self


CONFIG = ChainConfig
