"""Distillation of one causal language model into another, three ways with one budget.

`sequence` fits the student to samples of the sharpened teacher (Kim & Rush 2016); `forward-kl` matches the teacher's
next-token distribution on the same samples; `reverse-kl` matches the other way round on the student's own samples
(on-policy; Agarwal et al. 2024), with no gradient through the sampling. All take `updates` steps of `batch` responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from alignfirst.errors import InputError
from alignfirst.lm.distil.teacher import Outputs, forward_kl, outputs_of, remember, reverse_kl
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Ints, Prompts, join
from alignfirst.lm.text.logprobs import next_token_logp
from alignfirst.lm.text.torch_streams import permutations, stream, torch_stream
from alignfirst.lm.training.batch_cursor import BatchCursor
from alignfirst.lm.training.cached import cached
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Log, Tally
from alignfirst.lm.training.loop import Loop
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.lm.training.result import TrainingResult
from alignfirst.lm.training.sft import likelihood_step
from alignfirst.theory.drawing_filters import parse_filter

Method = Literal["sequence", "forward-kl", "reverse-kl"]
AT_ONCE = 512  # teacher samples in one call; part of what the numbers are


@dataclass(frozen=True)
class DistilSettings:
    """`temperature` (tau) sharpens the teacher, below 1: its logits are divided by it wherever it is asked."""

    method: Method
    optim: OptimSettings
    temperature: float = 0.8
    samples: int = 8_192  # of the teacher; `reverse-kl` draws the student's, `batch` an update
    updates: int = 250
    batch: int = 128
    top_k: int | None = None  # KLs: the teacher's k likeliest tokens and the mass of the others; None: all tokens
    chunk: int | None = None  # responses in one forward pass; None: all
    occurrence: int = 0
    filter: str | None = None  # of the teacher's samples, such as top_p=0.9; its outputs are asked whole

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("the distillation must be known", self.method, f"Choose from {', '.join(METHODS)}.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError("temperature must be > 0", self.temperature, "1 copies the teacher, 0.8 sharpens it.")
        if min(self.samples, self.updates, self.batch) < 1:
            raise InputError("samples, updates and batch must be >= 1", self, "Use the defaults.")
        if self.filter is not None:
            parse_filter(self.filter)
        if self.top_k is not None and (self.top_k < 1 or self.method == "sequence"):
            raise InputError("top_k must be >= 1 and belongs to the KLs", self.top_k, "Leave it out for all tokens.")


def distil(
    teacher: Any,
    student: Any,
    prompts: Prompts,
    settings: DistilSettings,
    seed: int,
    rehearsal: Batch | None = None,
    log: Log | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team = ALONE,
) -> TrainingResult:
    """Train `student` in place to write as `teacher` does after `prompts`, which take turns.

    Both are causal LMs of one vocabulary on one device; the teacher is only asked. `seed` (>= 0) decides every random
    number. `rehearsal` examples take the places of as many of the `settings.samples` and are fitted by likelihood.
    `log(update, values)` is told of every update. With `checkpoints` an interrupted training goes on from the last one.
    Processes of a `team` share the teacher's samples and the chunks of an update; what all need of the teacher's
    outputs, or of the student's own samples, each makes for itself, and it is counted once.

    Curves: `loss` in nats per response token, the terms it is the sum of under their names, `grad_norm`. Raises
    StageFailure when the gradient or a model's logits are not finite, InputError where rehearsal leaves no room for
    samples, the teacher's outputs do not fit into memory, or text does not fit a model's positions.
    """
    d = Distillation(teacher.eval(), student.eval(), prompts, settings, seed, rehearsal, checkpoints, team)
    method, identity = METHODS[settings.method](d), ("distil", settings, seed)
    rows: BatchCursor[Ints] = BatchCursor(
        permutations(stream(seed, "batches", settings.occurrence), settings.samples, settings.batch)
    )
    with Loop(student, settings.optim, settings.updates, identity, d.tally, log, checkpoints, team) as loop:
        for update in loop.steps(rows):
            terms = {n: team.sum(share) for n, share in step(d, method, update, next(rows)).items()}
            loop.step({"loss": sum(terms.values()), **terms})
    return TrainingResult.of(loop, settings.updates * settings.batch)


@dataclass
class Distillation:
    """What all methods share."""

    teacher: Any
    student: Any
    prompts: Prompts
    settings: DistilSettings
    seed: int
    rehearsal: Batch | None
    checkpoints: Checkpoints | None = None
    team: Team = ALONE
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.own = self.settings.samples - (0 if self.rehearsal is None else len(self.rehearsal))  # the teacher's
        if self.own < 1:
            raise InputError("rehearsal must leave room for samples", self.settings.samples, "Rehearse fewer examples.")

    def draw(
        self,
        model: Any,
        purpose: str,
        place: int,
        n: int,
        temperature: float,
        filtered: str | None,
        counted: bool = True,
    ) -> Batch:
        """n responses; prompts take turns."""
        which = (place + np.arange(n)) % len(self.prompts)
        rng = torch_stream(self.seed, purpose, self.settings.occurrence, place)
        batch = draw_answers(model, self.prompts, which, rng, temperature, filtered=filtered).batch
        if counted:
            self.tally.sample(model, batch)
        return batch

    def teacher_text(self) -> Batch:
        """The teacher's samples, the same for every method that uses them."""

        def draw(first: int) -> Batch:
            n = min(AT_ONCE, self.own - first)
            batch = self.draw(self.teacher, "teacher", first, n, self.settings.temperature, self.settings.filter)
            return batch if self.team.size == 1 else batch.to("cpu")

        def make() -> State:
            return State({}, join(self.team.map_and_gather(range(0, self.own, AT_ONCE), draw)).tensors())

        text = cached("teacher", make, self.tally, self.team, self.checkpoints)
        return Batch.of_tensors(text.tensors).to(self.teacher.device)

    @property
    def first(self) -> bool:
        """Whether this process counts what all of them make."""
        return self.team.rank == 0


def step(d: Distillation, method: MethodSteps, update: int, picks: Ints) -> dict[str, float]:
    """Add up this process's gradients of one batch; its share of the loss terms, which are its sum."""
    own, again = picks[picks < d.own], picks[picks >= d.own] - d.own
    parts = {"own": method.responses(update, own)} if len(own) else {}
    if len(again):
        assert d.rehearsal is not None
        parts["rehearsal"] = d.rehearsal.rows(again)
    tokens = sum(int(b.mask.sum()) for b in parts.values())
    terms: dict[str, float] = {}
    if "own" in parts:
        terms[d.settings.method] = method.learn(parts["own"], own, tokens)
    if "rehearsal" in parts:
        terms["rehearsal"] = likelihood_step(d.student, parts["rehearsal"], tokens, d.tally, d.settings.chunk, d.team)
    return terms


class MethodSteps(Protocol):
    """A distillation: which responses an update takes, and the gradient it leaves on them."""

    def __init__(self, d: Distillation) -> None: ...

    def responses(self, update: int, rows: Ints) -> Batch: ...

    def learn(self, batch: Batch, rows: Ints, tokens: int) -> float:
        """Backward through the loss, a sum over response tokens divided by `tokens`; returns it."""
        ...


class Sequence:
    """-log student(y) of teacher samples y."""

    def __init__(self, d: Distillation) -> None:
        self.d, self.text = d, d.teacher_text()

    def responses(self, update: int, rows: Ints) -> Batch:
        return self.text.rows(rows)

    def learn(self, batch: Batch, rows: Ints, tokens: int) -> float:
        return likelihood_step(self.d.student, batch, tokens, self.d.tally, self.d.settings.chunk, self.d.team)


class ForwardKl(Sequence):
    """KL(teacher || student) of the next token, along teacher samples; the teacher is asked once."""

    def __init__(self, d: Distillation) -> None:
        super().__init__(d)
        size = d.settings.chunk or AT_ONCE
        self.outputs = remember(d.teacher, self.text, d.settings.temperature, d.settings.top_k, size)
        if d.first:
            d.tally.score(d.teacher, self.text, whole=True)

    def learn(self, batch: Batch, rows: Ints, tokens: int) -> float:
        total, size = 0.0, self.d.settings.chunk or len(rows)
        for a in self.d.team.backward_parts(range(0, len(rows), size)):
            total += match(
                self.d, forward_kl, batch.rows(slice(a, a + size)), self.outputs.rows(rows[a : a + size]), tokens
            )
        return total


class ReverseKl:
    """KL(student || teacher) of the next token, along the student's own samples."""

    def __init__(self, d: Distillation) -> None:
        self.d = d

    def responses(self, update: int, rows: Ints) -> Batch:
        return self.d.draw(self.d.student, "student", update, len(rows), 1.0, None, counted=self.d.first)

    def learn(self, batch: Batch, rows: Ints, tokens: int) -> float:
        total, settings = 0.0, self.d.settings
        for part in self.d.team.backward_parts(list(batch.chunks(settings.chunk))):
            outputs = outputs_of(self.d.teacher, part, settings.temperature, settings.top_k)
            self.d.tally.score(self.d.teacher, part, whole=True)
            total += match(self.d, reverse_kl, part, outputs, tokens)
        return total


METHODS: dict[str, type[MethodSteps]] = {"sequence": Sequence, "forward-kl": ForwardKl, "reverse-kl": ReverseKl}


def match(
    d: Distillation, kl: Callable[[Tensor, Tensor], Tensor], batch: Batch, outputs: Outputs, tokens: int
) -> float:
    """Backward through a divergence, summed over response tokens and divided by `tokens`."""
    batch = batch.to(d.student.device)
    student = outputs.of_student(next_token_logp(d.student, batch))
    loss = batch.total(kl(outputs.logp, student)).sum() / tokens
    loss.backward()
    d.tally.train(d.student, batch, whole=True)
    return float(loss.detach())
