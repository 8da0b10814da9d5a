"""The sections of a study of a user's own models and preference data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from alignfirst.data.layouts import Shape
from alignfirst.errors import InputError
from alignfirst.plugins import REWARD_FUNCTIONS
from alignfirst.study.config import sections
from alignfirst.study.config.sections import MAX_SAMPLES
from alignfirst.study.config.study_config import (
    Algorithms,
    Betas,
    Real,
    Section,
    Seeds,
    StudyConfig,
    Whole,
    listed,
    one_line,
    option,
)
from alignfirst.study.config.validation import broken, did_you_mean
from alignfirst.theory.objectives import ALGORITHMS


def _function(name: str) -> str:
    if not sections.names_function(name):
        known = tuple(REWARD_FUNCTIONS)
        more = f", or a plug-in: {', '.join(known)}" if known else ""
        cure = did_you_mean(name, known, f"For example my_rewards:helpful{more}.")
        raise broken("{key} must be named as module:function", name, cure)
    return name


Line = Annotated[str, Strict(), Field(min_length=1, max_length=1_000), AfterValidator(one_line)]
Function = Annotated[Line, AfterValidator(_function)]
Rate = Annotated[Real, Field(gt=0, le=1)]


class Teacher(Section):
    """The large model: a directory, a hub id (`id@revision`), a .gguf file, or `smollm2-135m-instruct`."""

    model: Line = "smollm2-135m-instruct"


class Student(Section):
    """The small model: cut from the teacher by layers, pretrained, or from scratch by a config."""

    layers: Whole | None = option(None, "How many of the teacher's layers the student keeps.", ge=1, le=1_000)
    model: Line | None = None
    config: Line | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [n for n in ("layers", "model", "config") if getattr(self, n) is not None]
        if len(given) != 1:
            cure = "Name a pretrained model, a config for fresh weights, or layers; set the others to null."
            raise broken("student must say one of layers, model and config", given or "none", cure)
        return self


class Columns(Section):
    """Which column holds which part of a row, where its name does not say it."""

    prompt: Line | None = None
    input: Line | None = None  # stands below the prompt
    system: Line | None = None
    chosen: Line | None = None
    rejected: Line | None = None
    tools: Line | None = None
    confidence: Line | None = None

    @property
    def given(self) -> dict[str, str]:
        """Part -> column, of those that are named."""
        return {part: column for part, column in self.model_dump().items() if column is not None}


class Data(Section):
    """Preference pairs, or prompts alone; which of them are held out, and how long they may be."""

    pairs: Line | None = None
    prompts: Line | None = None
    shape: Shape = "auto"
    columns: Columns = Columns()
    split: Line = "train"
    rows: Whole | None = option(None, "Only the first so many rows are read; leave it out for all.", ge=2)
    held_out: Real = option(0.1, "A share of the prompts, such as 0.1.", gt=0, lt=1)
    split_seed: Whole = option(0, ge=0, le=2**32 - 1)
    max_length: Whole = option(1_024, "Tokens of a prompt with its answer; longer rows are dropped, never cut.", ge=8)
    chat: bool = False  # wrap plain text into the model's chat template


class Reward(Section):
    """What an answer is worth: a function of texts, or a sequence classifier."""

    function: Function | None = None
    classifier: Line | None = None
    label: Line | None = None
    timeout: Real = option(60.0, "Seconds that one call of a function of yours may take.", gt=0, le=86_400)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.function is not None and self.classifier is not None:
            raise broken("reward must be one of function and classifier", "both", "Leave one of the two out.")
        return self

    @property
    def given(self) -> bool:
        return self.function is not None or self.classifier is not None


class Lora(Section):
    """Low-rank adapters instead of all weights (Hu et al. 2021); rank 0 trains all weights."""

    rank: Whole = option(0, "Typical ranks are 8 to 64; 0 trains all weights.", ge=0, le=4_096)
    alpha: Real = option(16.0, "Adapters are scaled by alpha / rank.", gt=0, le=1e4)
    stages: Annotated[tuple[Literal["sft", "align", "distil"], ...], BeforeValidator(listed)] = ("align",)


class Fit(Section):
    """AdamW, warmed up over the first tenth of the steps. `chunk`: rows in one forward pass."""

    steps: Whole = option(200, ge=0, le=10_000_000)
    batch: Whole = option(16, ge=1, le=16_384)
    chunk: Whole = option(4, ge=1, le=16_384)
    learning_rate: Rate = option(1e-5, "AdamW's step; 1e-5 is the default.")


class Sft(Fit):
    """Fine-tuning of the teacher on the chosen answers before anything else; 0 steps take it as it is."""

    steps: Whole = option(0, ge=0, le=10_000_000)


class Distil(Fit):
    """What the student learns from a teacher, on the teacher's own answers to the training prompts."""

    steps: Whole = option(200, ge=1, le=10_000_000)
    learning_rate: Rate = option(1e-4, "AdamW's step; 1e-4 is the default.")
    loss: Literal["sequence", "forward-kl", "reverse-kl"] = "forward-kl"
    temperature: Real = option(0.8, "The teacher's: 1 copies it, 0.8 is the default.", gt=0, le=4)
    filter: sections.Filter = None
    samples: Whole = option(512, ge=1, le=MAX_SAMPLES)
    prompts: Whole = option(64, "How many training prompts the samples answer.", ge=1, le=MAX_SAMPLES)
    new_tokens: Whole = option(128, ge=1, le=32_768)
    top_k: Whole | None = option(64, "How many of the teacher's tokens the KLs see; null for all.", ge=1)
    rehearsal: Real = option(0.05, "A share of chosen answers, such as 0.05.", ge=0, le=0.9)


class Align(sections.TextAlign):
    """The optimiser that every alignment algorithm shares. `chunk`: responses in one forward pass."""

    updates: Whole = option(100, ge=1, le=1_000_000)
    learning_rate: Rate = option(5e-6, "AdamW's step; 5e-6 is the default, for adapters 1e-4.")
    samples: Whole = option(16, ge=2, le=16_384)
    chunk: Whole = option(4, "Whole pairs (or groups) that divide align.samples.", ge=2, le=16_384)
    new_tokens: Whole = option(128, ge=1, le=32_768)


class Preferences(sections.Preferences):
    """How pairs are drawn and labelled where a reward stands in for a file of them."""

    pairs: Whole = option(512, ge=2, le=MAX_SAMPLES)


class Measure(Section):
    """Held-out pairs that are scored, and the answers drawn to held-out prompts, of each model."""

    pairs: Whole = option(256, ge=1, le=MAX_SAMPLES)
    prompts: Whole = option(16, ge=1, le=MAX_SAMPLES)
    samples: Whole = option(64, "Standard errors fall with the square root; 64 is the default.", ge=2, le=MAX_SAMPLES)
    new_tokens: Whole = option(128, ge=2, le=32_768)
    filter: sections.Filter = None
    tasks: tuple[Line, ...] = option((), "Names of lm-eval tasks.", max_length=64)
    task_limit: Whole | None = option(None, "So many examples of each task; leave it out for all.", ge=1)


def _target(rule: str) -> str:
    from alignfirst.auditing.inputs import Target

    try:
        Target.parse(rule)
    except InputError:
        raise broken("{key} must be a rule on the reward", rule, "Write for example 'R >= 0.5'.") from None
    return rule


class Audit(Section):
    """What is drawn of every reference before it is aligned, and which answers are the target's: `R >= 0.5`."""

    target: Annotated[Line, AfterValidator(_target)] | None = None
    wanted: Real | None = option(None, "Reward of an answer as it should be; else chosen answers say.")
    prompts: Whole = option(16, "Training prompts, each answered audit.samples times.", ge=1, le=MAX_SAMPLES)
    samples: Whole = option(32, "Answers to each prompt.", ge=2, le=MAX_SAMPLES)
    pairs: Whole = option(256, "Training pairs that are scored.", ge=1, le=MAX_SAMPLES)


class Budget(Section):
    """What both orders get the same of; the align stages of all but the first recipe are scaled to it."""

    match: Literal["updates", "flops", "tokens"] = "updates"


class UserModelsConfig(StudyConfig):
    """A study of a user's own models."""

    world: Literal["hf"] = "hf"
    algorithms: Algorithms = ("dpo-offline",)
    beta: Betas = (0.1,)
    seeds: Seeds = 1
    teacher: Teacher = Teacher()
    student: Student = Student(layers=10)
    data: Data = Data()
    reward: Reward = Reward()
    precision: Literal["float32", "bfloat16"] = "float32"
    lora: Lora = Lora()
    sft: Sft = Sft()
    distil: Distil = Distil()
    align: Align = Align()
    preferences: Preferences = Preferences()
    budget: Budget = Budget()
    measure: Measure = Measure()
    audit: Audit = Audit()

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        sections.check_trainer(self, self.align)
        sections.check_recipes(self, self.distil.rehearsal * self.distil.samples, self.align.updates)
        self._check_chunks()
        self._check_data()
        return self

    def _check_chunks(self) -> None:
        unit = 2 if all(ALGORITHMS[name].on_pairs for name in self.algorithms) else self.align.group_size
        if self.align.samples % self.align.chunk or self.align.chunk % unit:
            rule = f"align.chunk must be a multiple of {unit} that divides align.samples ({self.align.samples})"
            raise broken(rule, self.align.chunk, "Pairs and groups stay together in a chunk.")

    def _check_data(self) -> None:
        """Data may be missing here: a preset has none. Pairs are checked where they are needed by an algorithm."""
        drawn = [n for n in self.algorithms if ALGORITHMS[n].data != "pairs-offline"]
        if drawn and not self.reward.given:
            cure = "Set reward.function (module:function) or reward.classifier, or align on the pairs: dpo-offline."
            raise broken(f"{drawn[0]} draws answers, so it must have a reward", "none", cure)
        for name in ("target", "wanted"):
            if getattr(self.audit, name) is not None and not self.reward.given:
                cure = "Set reward.function (module:function) or reward.classifier."
                raise broken(f"audit.{name} must come with a reward", getattr(self.audit, name), cure)
        if self.data.prompts is not None and self.data.pairs is not None:
            raise broken("data must be one of pairs and prompts", "both", "Pairs bring their prompts with them.")
        if self.data.prompts is not None and not self.reward.given:
            raise broken("data.prompts must come with a reward", "none", "Set reward.function, or name data.pairs.")
        if self.data.prompts is not None and self.sft.steps:
            raise broken("sft.steps must be 0 where there are prompts alone", self.sft.steps, "There are no answers.")


CONFIG = UserModelsConfig
