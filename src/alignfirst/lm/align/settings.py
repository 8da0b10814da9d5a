"""What an alignment is asked to do: data and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

from alignfirst.errors import InputError
from alignfirst.lm.align.pair_batches import Labels, Pairs
from alignfirst.lm.align.reward_calls import Reward
from alignfirst.lm.align.value import ValueSettings
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.theory.beta import checked_beta
from alignfirst.theory.objectives import ALGORITHMS, Algorithm
from alignfirst.theory.schedules import CONSTANT

Level = Literal["sequence", "token"]
KlIn = Literal["reward", "loss"]
NODE_KEYS = {
    name: name for name in ("algorithm", "updates", "samples", "level", "kl_in", "epochs", "chunk", "occurrence")
}
NODE_KEYS |= {"group_size": "group", "stored_pairs": "pairs"}  # field of `AlignSettings` -> key of an align node


@dataclass(frozen=True)
class Task:
    """Prompts and what is wanted of the answers. Offline algorithms take `pairs`, or draw them from `pair_source`."""

    prompts: Prompts
    reward: Reward | None = None
    is_target: Callable[[Batch], Any] | None = None  # bools [B]: which answers are what one hopes for
    pairs: Pairs | None = None
    pair_source: Any = None  # a model; None: the reference


@dataclass(frozen=True)
class AlignSettings:
    """What an algorithm needs. `beta` means the same for all: DPO and IPO get b = label scale * beta."""

    algorithm: str
    beta: float  # 0: no KL term, as baselines have none
    optim: OptimSettings
    updates: int = 72  # gradient steps
    samples: int = 128  # responses an update; twice the number of pairs
    group_size: int = 8  # responses to one prompt that are compared with each other
    epochs: int = 4  # PPO: updates on one batch of rollouts
    level: Level = "sequence"  # rollouts: one coefficient for a response, or one for each of its tokens
    kl_in: KlIn = "reward"  # rollouts: the KL is part of the reward, or of the loss (as TRL's GRPO has it)
    labels: Labels = field(default_factory=Labels)
    stored_pairs: int = 4_096
    value: ValueSettings = field(default_factory=ValueSettings)
    chunk: int | None = None  # responses in one forward pass, and what processes share out; None: all
    occurrence: int = 0  # which align stage of its recipe: a second one draws other noise
    probe_every: int = 0  # offline: draw from the policy every so many updates, for the curves alone; 0: never
    reward_timeout: float | None = None  # seconds for one call

    @classmethod
    def of(cls, s: Mapping[str, Any], optim: OptimSettings, **more: Any) -> Self:
        """From the settings of a world's align node; what they leave out has its default. `more` is the world's own."""
        given = {name: s[key] for name, key in NODE_KEYS.items() if key in s}
        optim = replace(optim, schedule=s.get("schedule", CONSTANT))
        return cls(optim=optim, beta=s["beta"] or 0.0, labels=Labels(**s.get("labels", {})), **given, **more)

    def __post_init__(self) -> None:
        self._check_names()
        self._check_beta()
        self._check_sizes()

    def _check_names(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError("algorithm must be known", self.algorithm, f"Choose from {', '.join(ALGORITHMS)}.")
        if self.level not in ("sequence", "token"):
            raise InputError("level must be sequence or token", self.level, "`sequence` is the default.")
        if self.kl_in not in ("reward", "loss"):
            raise InputError("kl_in must be reward or loss", self.kl_in, "`reward` is the default; its optimum is pi*.")

    def _check_beta(self) -> None:
        if not self.used.uses_beta and self.beta:
            raise InputError(f"beta of {self.algorithm} must be 0", self.beta, "It is a baseline without a KL term.")
        if self.beta or (self.used.on_pairs and self.used.uses_beta):
            checked_beta(self.beta)

    def _check_sizes(self) -> None:
        unit = 2 if self.used.on_pairs else self.group_size
        if min(self.updates, self.epochs, self.stored_pairs) < 1 or self.group_size < 2:
            raise InputError(
                "updates, epochs, stored_pairs must be >= 1 and group_size >= 2", self, "Use the defaults."
            )
        if self.samples < unit or self.samples % unit:
            what = "2, as pairs are drawn two by two" if self.used.on_pairs else f"the group size {unit}"
            raise InputError(f"samples must be a multiple of {what}", self.samples, "Use for example 128 and 8.")
        if self.chunk is not None and (self.chunk < unit or self.chunk % unit or self.samples % self.chunk):
            rule = f"chunk must be a multiple of {unit} that divides samples ({self.samples})"
            raise InputError(rule, self.chunk, "Groups and pairs stay together in a chunk.")

    @cached_property
    def used(self) -> Algorithm:
        return ALGORITHMS[self.algorithm]

    @property
    def reuse(self) -> int:
        """Updates on one batch."""
        return self.epochs if self.used.reuses_batches else 1

    @property
    def at_once(self) -> int:
        """Responses in one forward pass."""
        return self.chunk or self.samples

    @property
    def b(self) -> float:
        """What DPO and IPO call beta."""
        return self.labels.scale * self.beta
