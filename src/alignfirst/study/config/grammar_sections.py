"""The sections of a grammar study: small transformers on a mixture of Markov chains whose probabilities are exact."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from alignfirst.plugins import REWARD_FUNCTIONS
from alignfirst.study.config import sections
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.sections import MAX_SAMPLES
from alignfirst.study.config.study_config import Algorithms, Betas, Real, Section, Seeds, StudyConfig, Whole, option
from alignfirst.study.config.validation import broken, did_you_mean

REWARDS = ("reflected", "clip", "none", "posterior")


def _reward(kind: str) -> str:
    if kind not in REWARDS and not sections.names_function(kind):
        known = (*REWARDS, *REWARD_FUNCTIONS)
        choices = f"Choose from {', '.join(known)}, or name a function of yours as module:function."
        raise broken("{key} must be a reward", kind, did_you_mean(kind, known, choices))
    return kind


TargetWeight = Annotated[Real, Field(ge=1e-6, le=1 - 1e-6)]


class PStar(Section):
    """The ground truth: behaviours are Markov chains over words of their own; the last one is the target."""

    target_weight: TargetWeight = option(0.05, "The target's share of p_star, such as 0.05.")
    further_prompts: tuple[TargetWeight, ...] = option((), max_length=64)
    behaviours: Whole = option(6, ge=2, le=64)
    words: Whole = option(48, ge=4, le=4096)
    own: Whole = option(16, "Words a behaviour has; the target's own are no one else's.", ge=1)
    successors: Whole = option(4, ge=1)
    smoothing: Real = option(0.02, "A share of uniform noise in every step, such as 0.02.", ge=1e-4, le=0.5)
    length: Whole = option(16, ge=2, le=512)
    zipf: Real = option(1.0, "The other behaviours' weights fall as 1 / rank^zipf.", ge=0, le=5)
    language: Whole = option(0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if 2 * self.own > self.words:
            rule = f"p_star.own must be at most half of p_star.words ({self.words})"
            raise broken(rule, self.own, "The target's words are its own; the others share the rest.")
        if self.successors > self.own:
            rule = f"p_star.successors must be at most p_star.own ({self.own})"
            raise broken(rule, self.successors, "A word is followed by words of the same behaviour.")
        return self


class Reward(Section):
    """What a text is worth: its likelihood under the target chain, scaled, or a function of yours."""

    kind: Annotated[str, AfterValidator(_reward)] = option("reflected", max_length=200)
    temperature: Real = option(
        0.8, "The target chain is sharpened to this temperature; 0.8 is the default.", gt=0, le=4
    )
    timeout: Real = option(60.0, "Seconds that one call of a function of yours may take.", gt=0, le=86_400)


class Transformer(Section):
    """A Llama-style model trained from scratch with AdamW."""

    hidden: Whole = option(96, ge=4, le=2048)
    layers: Whole = option(2, ge=1, le=48)
    heads: Whole = option(4, ge=1, le=64)
    intermediate: Whole = option(256, ge=4, le=8192)
    steps: Whole = option(500, ge=1, le=1_000_000)
    batch: Whole = option(128, ge=1, le=16_384)
    learning_rate: Real = option(3e-3, "AdamW's step; 3e-3 is the default.", gt=0, le=1)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        sections.check_heads(self, self.hidden, self.heads)
        return self


class Sft(Transformer):
    """The high-recall model: every step has a batch of fresh samples of p_star."""


class Distil(Transformer):
    """The student, and what it learns from a teacher."""

    hidden: Whole = option(64, ge=4, le=2048)
    layers: Whole = option(1, ge=1, le=48)
    intermediate: Whole = option(128, ge=4, le=8192)
    steps: Whole = option(250, ge=1, le=1_000_000)
    loss: Literal["sequence", "forward-kl", "reverse-kl"] = "sequence"
    temperature: Real = option(0.8, "The teacher's: 1 copies it, 0.8 is the default.", gt=0, le=4)
    filter: sections.Filter = None
    samples: Whole = option(8_192, ge=10, le=MAX_SAMPLES)
    top_k: Whole | None = option(None, "How many of the teacher's tokens the KLs see; null for all.", ge=1, le=4096)
    rehearsal: Real = option(0.05, "A share of target examples, such as 0.05.", ge=0, le=0.9)


class Align(sections.TextAlign):
    """The optimiser that every alignment algorithm shares; by default the KL is that of whole sequences."""

    updates: Whole = option(72, ge=1, le=1_000_000)
    learning_rate: Real = option(5e-4, "AdamW's step; 5e-4 is the default.", gt=0, le=1)
    samples: Whole = option(128, ge=4, le=16_384)


class Preferences(sections.Preferences):
    """How preference pairs are drawn and labelled."""

    scale: Real = option(5.0, "P(winner) = sigmoid(scale * reward gap); 5 is the default.", gt=0, le=1e3)


class Measure(Section):
    """Held-out text: samples of p_star, of p_target, and of the model itself, so many of each."""

    samples: Whole = option(
        2_048, "Standard errors fall with the square root: 2048 is the default.", ge=16, le=MAX_SAMPLES
    )
    filter: sections.Filter = None


class GrammarConfig(StudyConfig):
    """A study in the world of the exact grammar."""

    world: Literal["grammar"] = "grammar"
    algorithms: Algorithms = ("reinforce", "grpo", "ppo", "dpo-offline", "dpo-online")
    beta: Betas = (0.05, 0.1, 0.3)
    seeds: Seeds = 5
    p_star: PStar = PStar()
    reward: Reward = Reward()
    sft: Sft = Sft()
    distil: Distil = Distil()
    align: Align = Align()
    preferences: Preferences = Preferences()
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _check_recipes(self) -> Self:
        sections.check_trainer(self, self.align)
        sections.check_recipes(self, self.distil.rehearsal * self.distil.samples, self.align.updates)
        if self.distil.loss == "reverse-kl":
            for name in self.recipes:
                if any(stage.rehearsed for stage in RECIPES[name]):
                    rule = "recipes must not rehearse where distil.loss is reverse-kl"
                    raise broken(rule, name, "It learns on the student's own text: no examples can be mixed in.")
        return self


CONFIG = GrammarConfig
