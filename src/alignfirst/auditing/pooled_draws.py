"""Draws of the reference, and of a high-recall model beside it, as one weighted sample of the reference.

With n_q draws from q and n_p from p, the balance heuristic (Veach and Guibas 1995) gives draw i the weight
a_i = q(x_i) / (n_q q(x_i) + n_p p(x_i)); sum_i a_i f(x_i) then estimates E_q f without bias, and no weight exceeds
1 / n_q. So p may find what q hardly ever draws, at no risk of a single weight taking over. Weights are normalised
within every prompt: a bias of order 1/n, and every estimate indifferent to a constant added to the reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from alignfirst.auditing.constants import MIN_POOLED_HITS, MIN_PROMPTS
from alignfirst.auditing.share_intervals import (
    Bools,
    Floats,
    Ints,
    Number,
    Z,
    clopper_pearson,
    clustered_mean,
    share_interval,
)
from alignfirst.errors import InputError

MAX_REWARD = 1e100  # so that neither a square nor R / beta overflows


@dataclass(frozen=True)
class Sample:
    """Responses drawn from one model. Rewards [N]; the rest [N] or None.

    `logp_reference` and `logp_teacher`: log-probability of each response under q and p, in nats. `prompt`: any whole
    number that tells prompts apart; None where there is one prompt.
    """

    reward: Floats
    in_target: Bools | None = None
    logp_reference: Floats | None = None
    logp_teacher: Floats | None = None
    prompt: Ints | None = None

    @classmethod
    def of(cls, reward: ArrayLike, in_target: ArrayLike | None = None, **arrays: Any) -> Sample:
        """From anything array-like. Raises InputError for shapes that differ and values that are not finite."""
        r = np.asarray(reward, np.float64)
        if r.ndim != 1 or not len(r):
            raise InputError("a sample must be a list of at least one reward", r.shape, "Draw from the model first.")
        _require_finite("reward", r)
        if (far := np.abs(r) > MAX_REWARD).any():
            rule = f"rewards must lie between {-MAX_REWARD:g} and {MAX_REWARD:g}"
            raise InputError(rule, float(r[far][0]), "Beyond, exp(reward / beta) leaves floating point: scale them.")
        target = None if in_target is None else np.asarray(in_target, np.bool_)
        found: dict[str, Any] = {"in_target": target}
        for name, values in arrays.items():
            found[name] = None if values is None else np.asarray(values, np.int64 if name == "prompt" else np.float64)
            if found[name] is not None and name.startswith("logp"):
                _require_finite(name, found[name])
        for name, values in found.items():
            if values is not None and values.shape != r.shape:
                raise InputError(f"{name} must have one value per reward ({len(r)})", values.shape, "Check the rows.")
        return cls(r, **found)

    def __len__(self) -> int:
        return len(self.reward)


def _require_finite(name: str, values: Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        cure = "A response whose value is unknown must be left out, knowingly, before the audit."
        raise InputError(f"every {name} must be a finite number", f"{values[bad[0]]} at row {bad[0]}", cure)


@dataclass(frozen=True)
class Draws:
    """A weighted sample of the reference. Arrays [N], sorted by prompt; `starts` [P] is where each prompt begins."""

    reward: Floats
    in_target: Bools | None
    log_weight: Floats  # logsumexp is 0 within every prompt
    teacher: Bools  # drawn from p
    prompt: Ints  # 0 .. P - 1
    starts: Ints
    preferred: Floats | None  # rewards of preferred examples, from wherever
    raw_total: Number  # mean over prompts of the weights' sum before normalising: 1 in expectation

    @cached_property
    def weight(self) -> Floats:
        return np.asarray(np.exp(self.log_weight))

    @property
    def prompts(self) -> int:
        return len(self.starts)

    @property
    def pooled(self) -> bool:
        return bool(self.teacher.any())

    @cached_property
    def counts(self) -> Ints:
        return np.diff(np.append(self.starts, len(self.reward)))

    @property
    def reference_draws(self) -> int:
        return int((~self.teacher).sum())

    @property
    def reference_hits(self) -> int:
        return 0 if self.in_target is None else int((self.in_target & ~self.teacher).sum())

    @property
    def hits(self) -> int:
        return 0 if self.in_target is None else int(self.in_target.sum())

    def total(self, x: Floats) -> Floats:
        """Sum within every prompt: [N] -> [P]."""
        return np.asarray(np.add.reduceat(x, self.starts))

    def normalised(self, log_w: Floats) -> Floats:
        """Weights that sum to one within every prompt, from their logarithms: [N] -> [N]."""
        w = np.exp(log_w - np.repeat(np.maximum.reduceat(log_w, self.starts), self.counts))
        return np.asarray(w / np.repeat(self.total(w), self.counts))

    def variance(self, influence: Floats) -> float:
        """Variance of an estimate for one prompt from each draw's influence on it; draws of q and p are two strata."""
        total = 0.0
        for part in (influence[self.teacher], influence[~self.teacher]):
            if len(part) > 1:
                total += len(part) / (len(part) - 1) * float(((part - part.mean()) ** 2).sum())
        return total


def gather(reference: Sample, teacher: Sample | None = None, preferred: ArrayLike | None = None) -> Draws:
    """Pool draws of the reference with those of a high-recall model where there are any.

    Pooling needs both log-probabilities of every draw. `preferred`: rewards of preferred examples (chosen answers,
    target text); where they are missing, the teacher's hits stand in for them. Raises InputError.
    """
    parts = [reference] if teacher is None else [reference, teacher]
    if len({part.in_target is None for part in parts}) > 1:
        raise InputError("either all draws say whether they are in the target or none", "some", "Mark them all.")
    n = sum(len(part) for part in parts)
    prompt = np.concatenate([np.zeros(len(p), np.int64) if p.prompt is None else p.prompt for p in parts])
    order = np.argsort(prompt, kind="stable")
    ids, starts, inverse = np.unique(prompt[order], return_index=True, return_inverse=True)
    from_p = np.concatenate([np.full(len(part), k == 1) for k, part in enumerate(parts)])[order]
    log_a = np.zeros(n)
    if teacher is not None:
        gap = np.concatenate([_log_ratio(part) for part in parts])[order]  # log p - log q
        drawn = [np.bincount(inverse, side, len(ids))[inverse] for side in (~from_p, from_p)]
        with np.errstate(divide="ignore"):
            log_a = -np.logaddexp(np.log(drawn[0]), np.log(drawn[1]) + gap)
    else:
        log_a = -np.log(np.bincount(inverse)[inverse].astype(float))
    raw = Draws(
        np.concatenate([part.reward for part in parts])[order],
        None if reference.in_target is None else np.concatenate([_target(part) for part in parts])[order],
        log_a,
        from_p,
        inverse.astype(np.int64),
        starts.astype(np.int64),
        None if preferred is None else Sample.of(preferred).reward,
        Number(1.0, why="plain draws weigh the same"),
    )
    total = raw.raw_total if teacher is None else _raw_total(raw)
    with np.errstate(divide="ignore"):
        log_weight = np.log(raw.normalised(log_a))
    return Draws(*(raw.reward, raw.in_target, log_weight, from_p, raw.prompt, raw.starts, raw.preferred, total))


def _target(part: Sample) -> Bools:
    assert part.in_target is not None
    return part.in_target


def _log_ratio(part: Sample) -> Floats:
    if part.logp_reference is None or part.logp_teacher is None:
        cure = "Score every draw under both models, or leave the teacher's draws out."
        raise InputError("pooling needs log-probabilities of all draws under both models", "none for some", cure)
    return part.logp_teacher - part.logp_reference


def _raw_total(raw: Draws) -> Number:
    """Far from 1, the log-probabilities are not those of the distributions that were drawn from."""
    a = np.exp(raw.log_weight)
    totals = raw.total(a)
    if raw.prompts > 1:
        return clustered_mean(totals, np.arange(raw.prompts), "prompts")
    se = math.sqrt(raw.variance(a))
    return Number(float(totals[0]), float(totals[0]) - Z * se, float(totals[0]) + Z * se)


def reference_mass(draws: Draws) -> Number:
    """m0 = q(T) with its interval.

    One prompt, plain draws: Clopper-Pearson. One prompt, pooled: Korn-Graubard on the variance within both strata, or,
    where fewer than MIN_POOLED_HITS hits carry the estimate, Clopper-Pearson of the reference's own draws.
    Several prompts: the mean over prompts, Korn-Graubard on the variance between them.
    """
    if draws.in_target is None:
        return Number(None, why="no target was named")
    hit = draws.in_target.astype(float)
    per_prompt = draws.total(draws.weight * hit)
    m0 = min(float(per_prompt.mean()), 1.0)  # rounding
    if not draws.reference_draws:
        return Number(m0, why="none of the draws is the reference's own")
    if draws.hits in (0, len(hit)):  # nothing varies: what the reference's own draws allow
        return Number(m0, *clopper_pearson(m0 * draws.reference_draws, draws.reference_draws))
    if draws.prompts > 1:
        if draws.prompts < MIN_PROMPTS:
            return Number(m0, why=f"{draws.prompts} prompts are too few for an interval over prompts")
        return Number(m0, *share_interval(m0, float(per_prompt.var(ddof=1)) / draws.prompts, draws.prompts - 1))
    if draws.pooled and (effective := _effective(draws.weight * hit)) >= MIN_POOLED_HITS:
        variance = draws.variance(draws.weight * (hit - m0))
        return Number(m0, *share_interval(m0, variance, effective - 1))
    # So few hits carry the pooled estimate that its variance is unknown; what q drew itself is exact
    low, high = clopper_pearson(draws.reference_hits, draws.reference_draws)
    return Number(m0, min(low, m0), max(high, m0))


def _effective(w: Floats) -> float:
    """Effective number of hits behind a weighted share."""
    return float(w.sum() ** 2 / (w**2).sum())


def reference_reward(draws: Draws) -> Number:
    """R0 = E_q R with its interval (normal for one prompt, t over several)."""
    per_prompt = draws.total(draws.weight * draws.reward)
    if draws.prompts > 1:
        return clustered_mean(per_prompt, np.arange(draws.prompts), "prompts")
    r0 = float(per_prompt[0])
    se = math.sqrt(draws.variance(draws.weight * (draws.reward - r0)))
    if not se > 0:
        return Number(r0, why="every draw has the same reward" if len(draws.reward) > 1 else "one draw has no spread")
    return Number(r0, r0 - Z * se, r0 + Z * se)
