"""What the stages of a recipe will cost: tokens, floating-point operations, and how budgets are matched.

Planned from the lengths of the training rows and the sizes of the models, before anything is made. What a stage really
took is counted while it runs (`lm.tally`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from alignfirst.errors import InputError
from alignfirst.lm.models import named_models
from alignfirst.lm.training.flops import Sizes
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs

DRAWS = 256  # random chunks that stand for all
MOST = 1_000.0  # times align.updates: beyond, no budget is worth matching


@dataclass(frozen=True)
class Spent:
    """Tokens that pass through models, padding included, and the operations of that."""

    tokens: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.tokens + other.tokens, self.flops + other.flops)

    def __mul__(self, times: float) -> Spent:
        return Spent(self.tokens * times, self.flops * times)

    def of(self, unit: str) -> float:
        return self.tokens if unit == "tokens" else self.flops


@dataclass(frozen=True)
class StageCost:
    """One stage of a recipe: which of the two models learns, in how many updates, at what cost."""

    kind: str
    model: str  # teacher or student
    updates: int
    spent: Spent


class Costs:
    """Of one study."""

    def __init__(self, config: Any) -> None:
        self.config, self.inputs = config, resolve_inputs(config)
        index = self.inputs.index.arrays
        lengths = index["lengths"][~index["held"]]
        if not len(lengths):
            raise InputError("there must be a row to train on", 0, "Hold out fewer prompts, or bring more rows.")
        rng = np.random.default_rng(0)  # lengths alone depend on it
        self.train = len(lengths)
        self.chunks = lengths[rng.integers(0, len(lengths), (DRAWS, max(1, config.align.chunk // 2)))]  # [D, p, 3]
        self.prompt = float(lengths[:, 0].mean())

    @cached_property
    def teacher(self) -> Sizes:
        return Sizes.of_config(named_models.config_of(self.inputs.teacher_architecture))

    @cached_property
    def student(self) -> Sizes:
        return Sizes.of_config(named_models.config_of(self.inputs.student_architecture))

    def stages(self, recipe: Sequence[Any], algorithm: str | None, scale: float = 1.0) -> list[StageCost]:
        """The stages of a recipe after sft, with the updates of its align stages scaled."""
        found, model = [], "teacher"
        for stage in recipe:
            if stage.kind == "distil":
                spent, updates = self.distil(model), self.config.distil.steps
                model = "student"
            else:
                assert algorithm is not None
                updates = max(1, round(stage.updates * scale * self.config.align.updates))
                spent = self.align(model, algorithm, updates)
            found.append(StageCost(stage.kind, model, updates, spent))
        return found

    def sizes(self, model: str, stage: str) -> Sizes:
        sizes, lora = (self.teacher if model == "teacher" else self.student), self.config.lora
        if not (lora.rank and stage in lora.stages):
            return sizes
        return replace(sizes, learned=0.0, learned_head=False)  # adapters themselves are few

    def align(self, model: str, algorithm: str, updates: int) -> Spent:
        """One align stage."""
        a, sizes, method = self.config.align, self.sizes(model, "align"), ALGORITHMS[algorithm]
        n = float(updates * a.samples)
        if method.data == "pairs-offline" and self.config.data.pairs is not None:
            used = min(self.train, int(n) // 2)
            reference = self._scored(sizes) * (2 * used) if method.uses_reference else Spent()
            trained = self._pairs(sizes) * float(n / a.chunk)
            return trained + reference
        length, new = self.prompt + a.new_tokens, a.new_tokens
        drawn = Spent(length, sizes.sample(1, self.prompt, new))
        scored = Spent(length, sizes.forward(1, length - 1, new)) if method.uses_reference else Spent()
        learned = Spent(a.chunk * length, sizes.train(a.chunk, length - 1, a.chunk * new)) * (1 / float(a.chunk))
        if method.data == "pairs-offline":
            n_drawn = float(2 * self.config.preferences.pairs)
        else:
            n_drawn = n / float(a.ppo_epochs) if method.reuses_batches else n
        return (drawn + scored) * n_drawn + learned * n

    def _pairs(self, sizes: Sizes) -> Spent:
        """A chunk of pairs, padded to its longest answer."""
        prompt, chosen, rejected = np.moveaxis(self.chunks, 2, 0)  # [D, p]
        longest = (prompt + np.maximum(chosen, rejected)).max(1)
        predicted, rows = (chosen + rejected).sum(1), 2 * self.chunks.shape[1]
        each = [sizes.train(rows, int(t) - 1, int(n)) for t, n in zip(longest, predicted, strict=True)]
        return Spent(rows * float(longest.mean()), float(np.mean(each)))

    def _scored(self, sizes: Sizes) -> Spent:
        """One response under the reference, padded to the longest of its chunk."""
        size = self.config.align.chunk
        rng, both = np.random.default_rng(1), self.chunks.reshape(-1, 3)
        picks = both[rng.integers(0, len(both), (DRAWS, size))]
        longest = (picks[:, :, 0] + picks[:, :, 1]).max(1)
        each = [sizes.forward(size, int(t) - 1, int(n)) for t, n in zip(longest, picks[:, :, 1].sum(1), strict=True)]
        return Spent(float(longest.mean()), float(np.mean(each)) / size)

    def distil(self, source: str) -> Spent:
        """A student of the teacher, or of the student as it is."""
        d = self.config.distil
        teacher, student = self.sizes(source, ""), self.sizes("student", "distil")
        length, new, whole = self.prompt + d.new_tokens, d.new_tokens, d.loss != "sequence"
        chunk = min(d.chunk, d.batch)
        learned = student.train(chunk, length - 1, chunk * new, whole)
        spent = Spent(chunk * length, learned) * float(d.steps * d.batch / chunk)
        scored = Spent(length, teacher.forward(1, length - 1, new))
        if d.loss == "reverse-kl":
            return spent + (Spent(length, student.sample(1, self.prompt, new)) + scored) * float(d.steps * d.batch)
        spent += Spent(length, teacher.sample(1, self.prompt, new)) * float(d.samples)
        return spent + scored * float(d.samples) if whole else spent

    def sft(self) -> Spent:
        s = self.config.sft
        length, chosen = float(self.chunks.sum(2).mean()), float(self.chunks[:, :, 1].mean())
        chunk = min(s.chunk, s.batch)
        learned = self.sizes("teacher", "sft").train(chunk, length, chunk * chosen)
        return Spent(chunk * length, learned) * float(s.steps * s.batch / chunk)

    def draw(self, model: str) -> Spent:
        """What an audit draws of a model and scores; a reward is not counted."""
        a, sizes, new = self.config.audit, self.sizes(model, ""), self.config.align.new_tokens
        length = self.prompt + new
        spent = Spent()
        if self.config.reward.given:
            each = sizes.sample(1, self.prompt, new) + sizes.forward(1, length, new)
            spent += Spent(2 * length, each) * float(a.prompts * a.samples)
        if self.config.data.pairs is not None:
            both = float(self.chunks.sum(2).mean())
            spent += Spent(both, sizes.forward(1, both, float(self.chunks[:, :, 1:].sum(2).mean()))) * float(a.pairs)
        return spent

    def measure(self, model: str) -> Spent:
        """Answers drawn and scored by three models (the sft model's are drawn once for all), held-out pairs by two."""
        m, sizes = self.config.measure, self.sizes(model, "")
        length = self.prompt + m.new_tokens
        own_text = sizes.sample(1, self.prompt, m.new_tokens) + 3 * sizes.forward(1, length, m.new_tokens)
        answer = float(self.chunks[:, :, 1:].mean())
        held = 4 * sizes.forward(1, self.prompt + answer, answer)
        tokens = 4 * m.samples * length + 4 * m.pairs * (self.prompt + answer)
        return Spent(tokens, m.samples * own_text + m.pairs * held)


def scale(config: Any, recipe: Sequence[Any], first: Sequence[Any], algorithm: str | None) -> float:
    """What the align updates of a recipe are multiplied with, so that it costs what the first recipe does.

    Raises InputError where its other stages alone cost more, or no number of updates would do.
    """
    if not any(stage.kind == "align" for stage in recipe) or not any(stage.kind == "align" for stage in first):
        return 1.0
    costs, unit = Costs(config), config.budget.match

    def total(times: float) -> float:
        return sum((s.spent for s in costs.stages(recipe, algorithm, times)), Spent()).of(unit)

    budget = sum((s.spent for s in costs.stages(first, algorithm)), Spent()).of(unit)
    low, high = 1 / config.align.updates, MOST
    if not total(low) <= budget <= total(high):
        cure = "Name another recipe first, raise align.updates, or lower distil.samples and distil.steps."
        rule = f"budget.match: {unit} must be in reach of every recipe"
        raise InputError(rule, f"{total(low):.3g} to {total(high):.3g} for a budget of {budget:.3g}", cure)
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if total(middle) < budget else (low, middle)
    return high
