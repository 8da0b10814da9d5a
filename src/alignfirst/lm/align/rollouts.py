"""Responses: drawn, rewarded, scored, and what is made of them once or in every update (`lm.align.batches`).

A process does its own chunks of a draw and shares numbers with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.align.coefficients import Rollouts
from alignfirst.lm.align.pair_batches import Pairs
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.align.settings import AlignSettings, Task
from alignfirst.lm.align.value import Critic, explained, states_of, sums
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats, Ints, join
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.text.torch_streams import permutations, stream, torch_stream
from alignfirst.lm.training.cached import cached
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Tally
from alignfirst.lm.training.processes import Team

T = TypeVar("T")
# Responses in one call when pairs are drawn once and no chunk is set; part of what the numbers are.
AT_ONCE = 512
PAIR_ARRAYS = ("first", "second", "first_wins", "logp_ref")  # of `Pairs`, drawn ones: they have no weights


@dataclass
class Session:
    """All that the sources of one training share, and what they count."""

    policy: Any
    reference: Any
    task: Task
    settings: AlignSettings
    seed: int
    team: Team
    checkpoints: Checkpoints | None = None
    tally: Tally = field(default_factory=Tally)
    samples: int = 0
    hits: int = 0

    def rng(self, purpose: str, *place: int) -> np.random.Generator:
        return stream(self.seed, purpose, self.settings.occurrence, *place)

    def counts(self) -> dict[str, int]:
        """Of all processes together."""
        return {"samples": self.samples, "hits": self.hits}

    def count(self, counts: Mapping[str, int]) -> None:
        self.samples, self.hits = counts["samples"], counts["hits"]


@dataclass(frozen=True)
class Drawn:
    """N responses of one draw: this process's chunks, their rows, and the numbers of all."""

    batches: list[Batch]
    rows: list[slice]
    rollouts: Rollouts
    hits: Bools | None  # [N], which were target
    forwards: list[SavedForward | None]


def draw_rewarded(
    s: Session, model: Any, purpose: str, place: int, which: Ints, size: int, counted: bool = True
) -> Drawn:
    """One response of `model` to each of `which` prompts: rewarded, and scored by the reference if there is one."""
    rows = [slice(a, min(a + size, len(which))) for a in range(0, len(which), size)]
    own = [(i, rows[i]) for i in s.team.local_chunks(len(rows))]
    where = f"update {place}" if purpose == "rollouts" else f"drawing {purpose}"

    def part(i: int, r: slice) -> tuple[Batch, Rollouts, Bools | None, SavedForward | None]:
        rng = torch_stream(s.seed, purpose, s.settings.occurrence, place, i)
        drawn = draw_answers(model, s.task.prompts, which[r], rng, keep=purpose == "rollouts")
        batch, logp = drawn.batch, drawn.logp
        s.tally.sample(model, batch)
        reward = _rewards(s, batch, where)
        ref = logp if model is s.reference else _reference_logps(s, batch)
        hits = None if s.task.is_target is None else np.asarray(s.task.is_target(batch), bool)
        return batch, Rollouts(reward, logp, ref, batch.mask.cpu().numpy()), hits, drawn.forward

    parts = run_or_fail_together(s.team, lambda: [part(i, r) for i, r in own])
    hits = _gathered(s.team, [h for _, _, h, _ in parts])
    if counted:
        s.samples += len(which)
        s.hits += 0 if hits is None else int(hits.sum())
    numbers = _all(s.team, [p[1] for p in parts])
    return Drawn([p[0] for p in parts], [r for _, r in own], numbers, hits, [p[3] for p in parts])


def draw_labelled(
    s: Session, model: Any, purpose: str, place: int, prompts: Ints, uniforms: Floats, size: int
) -> tuple[Drawn, tuple[Ints, Ints, Bools]]:
    """Two responses of `model` to each of N prompts, and by reward and `uniforms` [N] which is preferred.

    Rows of first and second members, and whether the first wins, [N] each, count the responses of all processes.
    """
    which, first, second = pair_rows(prompts, size)
    drawn = draw_rewarded(s, model, purpose, place, which, size)
    reward = drawn.rollouts.reward
    return drawn, (first, second, uniforms < s.settings.labels.probability(reward[first], reward[second]))


def draw_pairs(s: Session) -> Pairs:
    """`stored_pairs` pairs of the pair source, labelled once; every process holds all of them."""
    settings, task = s.settings, s.task
    source = task.pair_source if task.pair_source is not None else s.reference
    if source is None:
        raise InputError("offline pairs need a model to draw from", None, "Give a reference, a pair_source or pairs.")
    prompts = next(permutations(s.rng("prompts"), len(task.prompts), settings.stored_pairs))
    uniforms = s.rng("labels").random(len(prompts))
    drawn, members = draw_labelled(s, source, "pairs", 0, prompts, uniforms, settings.chunk or AT_ONCE)
    ref = drawn.rollouts.logp_ref
    return Pairs(_of_all(s.team, join(drawn.batches)), *members, logp_ref=None if ref is None else ref.sum(1))


def kept_pairs(s: Session) -> Pairs:
    """`draw_pairs`, with what it cost; read back where a training is resumed."""

    def make() -> State:
        pairs = draw_pairs(s)
        arrays = {name: getattr(pairs, name) for name in PAIR_ARRAYS}
        return State(s.counts(), pairs.pool.tensors() | tensors_of(arrays))

    kept = cached("pairs", make, s.tally, s.team, s.checkpoints)
    s.count(kept.numbers)
    arrays = {name: tensor.numpy() for name, tensor in kept.tensors.items() if name in PAIR_ARRAYS}
    return Pairs(Batch.of_tensors(kept.tensors).to(s.policy.device), **arrays)


def pair_rows(prompts: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Prompts [N] -> prompts of 2N rows, and the rows of first and second members, [N] each.

    Rows come in chunks of `size`, all firsts of a chunk before its seconds, so that a chunk holds whole pairs.
    """
    which, first, second = [], [], []
    for a in range(0, len(prompts), size // 2):
        asked = prompts[a : a + size // 2]
        which += [asked, asked]
        first.append(2 * a + np.arange(len(asked)))
        second.append(2 * a + len(asked) + np.arange(len(asked)))
    return np.concatenate(which), np.concatenate(first), np.concatenate(second)


def with_reference(s: Session, pairs: Pairs) -> Pairs:
    """Pairs with log-probabilities of their responses under the reference, computed once."""
    parts = list(pairs.pool.chunks(s.settings.chunk or AT_ONCE))
    logp = s.team.map_and_gather(parts, lambda batch: _reference_logps(s, batch.trimmed()))
    return replace(pairs, logp_ref=np.concatenate([p.sum(1) for p in logp if p is not None]))


def rollout_metrics(drawn: Drawn) -> dict[str, float | None]:
    """What the curves show of responses that the policy gave."""
    curves = drawn.rollouts.curves()
    return curves if drawn.hits is None else curves | {"target_draws": float(drawn.hits.sum())}


def probe(s: Session, update: int) -> dict[str, float | None]:
    """`rollout_metrics` for offline algorithms, which never ask the policy: drawn for the curves, and not counted."""
    which = np.arange(s.settings.samples) % len(s.task.prompts)
    return rollout_metrics(draw_rewarded(s, s.policy, "probe", update, which, s.settings.at_once, counted=False))


class Baseline:
    """The critic's value of every state of a draw, from what it learned of earlier draws; then it learns this one."""

    def __init__(self, s: Session) -> None:
        self.s, self.critic = s, Critic(s.settings.value)
        self.frozen = s.reference if s.reference is not None else deepcopy(s.policy).requires_grad_(False)
        self.explains: float | None = None

    def __call__(self, drawn: Drawn, returns: Floats) -> Floats:
        """returns [1 or L, N] -> values of the same shape."""
        s, mask = self.s, drawn.rollouts.mask.T[: len(returns)]
        values, gram, moment = [], [], []
        for batch, rows in zip(drawn.batches, drawn.rows, strict=True):
            states = states_of(self.frozen, batch, len(returns))  # [1 or L, B, H]
            s.tally.score(self.frozen, batch)
            values.append(self.critic.predict(states).T)
            x, y = sums(states[mask[:, rows]], returns[:, rows][mask[:, rows]])
            gram.append(x)
            moment.append(y)
        known = s.team.gather(np.concatenate(values)).T
        self.explains = explained(returns[mask], known[mask])
        self.critic.learn(
            s.team.gather(np.sum(gram, axis=0)[None]).sum(0), s.team.gather(np.sum(moment, axis=0)[None]).sum(0)
        )
        return known


def tensors_of(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items() if a is not None}


def run_or_fail_together(team: Team, work: Callable[[], T]) -> T:
    """What every process does of its own; a failure of one is a failure of all."""
    result, failure = None, None
    try:
        result = work()
    except StageFailure as e:
        failure = e
    team.raise_if_any_failed(failure)
    assert result is not None
    return result


def _rewards(s: Session, batch: Batch, where: str) -> Floats:
    if s.task.reward is None:
        raise InputError("drawing responses needs a reward", None, "Give the task a reward, or pairs to train on.")
    return rewards_of(s.task.reward, batch, where, s.settings.reward_timeout)


def _reference_logps(s: Session, batch: Batch) -> Floats | None:
    if s.reference is None:
        return None
    s.tally.score(s.reference, batch)
    return score_batch(s.reference, batch)


def _gathered(team: Team, parts: Sequence[Any]) -> Any:
    return None if parts[0] is None else team.gather(np.concatenate(parts))


def _all(team: Team, parts: Sequence[Rollouts]) -> Rollouts:
    """Every process's rollouts. All have the same width, as answers are padded to `new_tokens`."""
    return Rollouts(
        *(_gathered(team, [getattr(p, name) for p in parts]) for name in ("reward", "logp", "logp_ref", "mask"))
    )


def _of_all(team: Team, own: Batch) -> Batch:
    """Every process's responses in one batch."""
    parts = (team.gather(x.cpu().numpy()) for x in (own.tokens, own.start, own.mask))
    return Batch(*(torch.from_numpy(x).to(own.tokens.device) for x in parts))
