"""Alignment of a causal language model: get responses, ask the algorithm for its coefficients, ascend.

One loop for every algorithm, as in the mixture. The gradient is the algorithm's coefficient, from `theory.objectives`
on plain arrays, times grad log pi of the response or of its tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.align.batches import SOURCES, Update, Work
from alignfirst.lm.align.pair_batches import Labels, Pairs
from alignfirst.lm.align.rollouts import Session, probe
from alignfirst.lm.align.settings import AlignSettings, Task
from alignfirst.lm.text.logprobs import response_logp
from alignfirst.lm.training.batch_cursor import BatchCursor
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.counters import Log
from alignfirst.lm.training.loop import Loop
from alignfirst.lm.training.processes import ALONE, Team
from alignfirst.lm.training.result import TrainingResult

__all__ = ["AlignSettings", "Labels", "Pairs", "Task", "align"]


def align(
    policy: Any,
    reference: Any,
    task: Task,
    settings: AlignSettings,
    seed: int,
    log: Log | None = None,
    team: Team = ALONE,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Train `policy` in place, regularised against `reference`, a frozen model of its own (None: without one).

    `task` has prompts, and a reward, a target or ready pairs; `settings` the algorithm, its beta and how many updates
    of how many responses it takes. `seed` >= 0 decides all that is drawn; `log` is called after every update with its
    number and its values. The processes of a `team` call this with equal models and share the chunks of an update.

    With one thread, the same arguments give the same weights, bit for bit, also where a training goes on from the last
    of its `checkpoints`. Curves, a value an update: `reward`, `kl` and `entropy` of whole responses in nats, `loss`,
    `grad_norm`; `margin` and `accuracy` of pairs; `target_draws`. Raises StageFailure when the reward fails (naming the
    row) or the gradient is not finite, InputError for what can be known beforehand.
    """
    check(policy, reference, task, settings)
    policy.eval()  # no dropout: responses are drawn from the distribution that is differentiated
    s = Session(policy, reference, task, settings, seed, team, checkpoints)
    source = SOURCES[settings.used.data](s)
    cursor, identity = BatchCursor(source.items(), source.read, settings.reuse, source), ("align", settings, seed)
    with Loop(policy, settings.optim, settings.updates, identity, s.tally, log, checkpoints, team) as loop:
        for step in loop.steps(cursor):
            begins = cursor.begins(step)
            metrics = dict(next(cursor).metrics) if begins else {}
            if probes(settings, step):
                metrics |= probe(s, step)
            loop.step(metrics | backward(s, source.update, drawn_now=begins))
    hits = None if task.is_target is None or not s.samples else s.hits
    return TrainingResult.of(loop, s.samples, target_draws=hits)


def backward(s: Session, update: Update, drawn_now: bool = False) -> dict[str, float | None]:
    """Add up the gradients of -sum_n c_n log pi(x_n) over this process's chunks; means of what there is to log."""
    notes = []
    for work in update.work:
        notes.append(ascend(s.policy, work, drawn_now))
        s.team.end_backward()
    for work in update.work:
        s.tally.train(s.policy, work.batch)
    return {name: float(s.team.gather(np.concatenate([n[name] for n in notes])).mean()) for name in notes[0]}


def ascend(policy: Any, work: Work, drawn_now: bool = False) -> dict[str, Any]:
    """One chunk: log pi of its tokens, the coefficients that the algorithm gives them, the gradient.

    `drawn_now`: the weights are still those that drew it, so that its forward pass may have been kept.
    """
    batch, forward = work.batch, work.forward if drawn_now else None
    logp = response_logp(policy, batch) if forward is None else torch.where(batch.mask, forward.logp, 0.0)  # [B, L]
    c, notes = work.coefficients(logp.detach().double().cpu().numpy())
    weights = -torch.as_tensor(c, dtype=logp.dtype, device=logp.device) * batch.mask
    if forward is None:
        (weights * logp).sum().backward()
    else:
        forward.add_gradient(weights)
    return notes


def probes(settings: AlignSettings, step: int) -> bool:
    return bool(settings.used.data == "pairs-offline" and settings.probe_every and step % settings.probe_every == 0)


def check(policy: Any, reference: Any, task: Task, settings: AlignSettings) -> None:
    """What can be refused before any work is done."""
    if reference is policy:
        raise InputError("the reference must be a model of its own", "the policy", "Pass a copy: it must stay fixed.")
    if settings.used.uses_reference and settings.beta and reference is None:
        cure = "Pass a frozen copy of the policy, or of the SFT model."
        raise InputError(f"{settings.algorithm} with beta > 0 needs a reference", None, cure)
    if task.reward is None and (settings.used.data != "pairs-offline" or task.pairs is None):
        raise InputError(f"{settings.algorithm} needs a reward here", None, "Give the task a reward or ready pairs.")
    check_lengths(policy, task)


def check_lengths(policy: Any, task: Task) -> None:
    """Nothing is cut and no prompt is dropped: what does not fit is refused, by its number."""
    limit = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return
    for i, row in enumerate(task.prompts.rows):
        if len(row) + task.prompts.new_tokens > limit + 1:  # the last token is drawn, not read
            words = f"prompt {i} has {len(row)}"
            cure = "Leave it out, or ask for shorter answers."
            raise InputError(f"prompt and {task.prompts.new_tokens} new tokens fit {limit} positions", words, cure)
    if task.pairs is not None and task.pairs.pool.tokens.shape[1] > limit + 1:
        words = f"one of {task.pairs.pool.tokens.shape[1]} tokens"
        raise InputError(f"pairs fit the model's {limit} positions", words, "Leave them out: see Pairs.of_rows.")
