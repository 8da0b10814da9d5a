"""Every alignment algorithm as its coefficients: the gradient is sum_n c_n grad log pi(x_n), ascent.

Arrays in, arrays out. `[..., N]` are the N samples (or N pairs) of one update, with anything in front: runs of the
mixture world, token positions of a language model. Every coefficient carries its 1/N, so that the caller only
multiplies and sums. Nothing here is differentiated: inputs are plain values.
"""

# Arithmetic of arrays of unknown float type is Any to the checker; every function keeps the type it is given.
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from alignfirst import plugins

Array = NDArray[np.floating[Any]]

GRPO_EPSILON = 1e-4  # Shao et al. 2024 divide by the group's sd; implementations add this
CLIP = 0.2


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) to rounding of 1; tanh vectorises, SciPy's expit, exact to rounding of itself, does not."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def shaped_reward(reward: Array, logp: Array, logp_ref: Array, beta: Any) -> Array:
    """r = R - beta (log pi - log pi_ref), on the sampling policy. Shapes [..., N]; beta broadcasts."""
    return reward - beta * (logp - logp_ref)


class Answers(NamedTuple):
    """One side of N pairs as the policy alone sees it, both [..., N]."""

    logp: Array  # log pi of the whole answer, nats
    length: Array  # its tokens; 1 for a point of the mixture world


def margin(logp_w: Array, logp_l: Array, logp_ref_w: Array, logp_ref_l: Array) -> Array:
    """m = (log pi - log pi_ref)(w) - (log pi - log pi_ref)(l), nats. Shapes [..., N]."""
    return (logp_w - logp_ref_w) - (logp_l - logp_ref_l)


def reinforce(shaped: Array, log_ratio: Array, group: int) -> Array:
    """Batch mean as baseline (Williams 1992): (r_n - mean r) / N."""
    _same_shape(shaped, log_ratio)
    return (shaped - shaped.mean(-1, keepdims=True)) / shaped.shape[-1]


def rloo(shaped: Array, log_ratio: Array, group: int) -> Array:
    """Leave-one-out baseline (Ahmadian et al. 2024, eq. 10): (r_n - mean of the others in its group) / N."""
    _same_shape(shaped, log_ratio)
    r = _grouped(shaped, group)
    others = (_total(r) - r) / (group - 1)
    return ((r - others) / shaped.shape[-1]).reshape(shaped.shape)


def grpo(shaped: Array, log_ratio: Array, group: int) -> Array:
    """Group-standardised (Shao et al. 2024, eq. 3): (r_n - group mean) / (group sd + 1e-4) / N.

    Its batches are used once here, so that the ratio is 1 to rounding and the clip of the paper never acts.
    """
    _same_shape(shaped, log_ratio)
    r = _grouped(shaped, group)
    centred = r - _total(r) / group
    sd = np.sqrt(_total(centred * centred) / (group - 1))
    advantage = (centred / (sd + GRPO_EPSILON)).reshape(shaped.shape)
    return clipped(advantage, log_ratio) / shaped.shape[-1]


def ppo(shaped: Array, log_ratio: Array, group: int) -> Array:
    """Clipped surrogate (Schulman et al. 2017, eq. 7) with A standardised over the batch."""
    _same_shape(shaped, log_ratio)
    centred = shaped - shaped.mean(-1, keepdims=True)
    sd = np.sqrt((centred * centred).mean(-1, keepdims=True))
    return clipped(centred / (sd + 1e-8), log_ratio) / shaped.shape[-1]


def clipped(advantage: Array, log_ratio: Array) -> Array:
    """Gradient of min(ratio A, clip(ratio) A) w.r.t. log pi: ratio A, or 0 where the clip is active."""
    ratio = np.exp(log_ratio)
    active = np.where(advantage > 0, ratio > 1 + CLIP, ratio < 1 - CLIP)
    return np.where(active, 0, ratio * advantage).astype(advantage.dtype)


def best_of_n(shaped: Array, log_ratio: Array, group: int) -> Array:
    """Imitate the best of each group, no reference (Stiennon et al. 2020): 1 on the best / N."""
    _same_shape(shaped, log_ratio)
    r = _grouped(shaped, group)
    best = np.zeros_like(r)
    np.put_along_axis(best, r.argmax(-1)[..., None], 1, -1)
    return (best / shaped.shape[-1]).reshape(shaped.shape)


def dpo(margin: Array, b: Any) -> tuple[Array, Array]:
    """Rafailov et al. 2023, eq. 7: +-b sigmoid(-b m) / N on winner and loser, N the number of pairs."""
    c = b * sigmoid(-b * margin) / margin.shape[-1]
    return c, -c


def ipo(margin: Array, b: Any) -> tuple[Array, Array]:
    """Azar et al. 2023, eq. 17: ascent on -(m - 1/(2b))^2, so +-2 (1/(2b) - m) / N."""
    c = 2 * (1 / (2 * b) - margin) / margin.shape[-1]
    return c, -c


def sft_preferred(winner: Answers, loser: Answers, b: Any) -> tuple[Array, Array]:
    """Imitate the winner, no reference: 1 on the winner / N."""
    _same_shape(winner.logp, loser.logp)
    c = np.full_like(winner.logp, 1 / winner.logp.shape[-1])
    return c, np.zeros_like(c)


def _same_shape(first: Array, second: Array) -> None:
    assert first.ndim >= 1 and first.shape == second.shape, f"[..., N] twice, got {first.shape} and {second.shape}"


def _total(values: Array) -> Array:
    """Sum over the last axis, kept; on groups of eight einsum takes a sixth of the time of `sum`."""
    return np.asarray(np.einsum("...n->...", values))[..., None]


def _grouped(values: Array, group: int) -> Array:
    """[..., N] -> [..., N / G, G]."""
    assert values.shape[-1] % group == 0, f"groups of {group} in {values.shape}"
    return values.reshape(*values.shape[:-1], -1, group)


# What each algorithm maximises over pairs, for logs and for tests by finite differences. Shapes [..., N] -> [...].
def dpo_objective(margin: Array, b: Any) -> Array:
    """mean log sigmoid(b m)."""
    return np.asarray(log_expit(b * margin).mean(-1))


def ipo_objective(margin: Array, b: Any) -> Array:
    """-mean (m - 1/(2b))^2."""
    return np.asarray(-((margin - 1 / (2 * b)) ** 2).mean(-1))


def sft_objective(winner: Answers, loser: Answers, b: Any) -> Array:
    """mean log pi of the winners."""
    return np.asarray(winner.logp.mean(-1))


def preference_probability(reward_w: Array, reward_l: Array, scale: float, flip: float = 0.0) -> Array:
    """Bradley-Terry with label noise: P(first preferred) = f + (1 - 2f) sigmoid(k (R_w - R_l))."""
    return np.asarray(flip + (1 - 2 * flip) * sigmoid(scale * (reward_w - reward_l)))


def dpo_optimal_margin(gap: Array, b: float, scale: float, flip: float = 0.0) -> Array:
    """Population optimum of DPO on two behaviours with reward gap D: logit(f + (1 - 2f) sigmoid(k D)) / b."""
    p = preference_probability(np.asarray(gap), np.zeros_like(gap), scale, flip)
    return np.asarray((np.log(p) - np.log1p(-p)) / b)


def ipo_optimal_margin(gap: Array, b: float, scale: float, flip: float = 0.0) -> Array:
    """Population optimum of IPO on two behaviours: (1 - 2f)(2 sigmoid(k D) - 1) / (2b)."""
    return np.asarray((1 - 2 * flip) * (2 * sigmoid(scale * np.asarray(gap)) - 1) / (2 * b))


@dataclass(frozen=True)
class Algorithm:
    """One alignment algorithm: where its samples come from, and its coefficient function.

    Rollouts: coefficients(shaped, log_ratio, group), shaped rewards [..., N] and log pi now minus log pi when drawn.
    Pairs: coefficients(margin, b) with a reference, coefficients(winner, loser, b) of `Answers` without; they return
    the coefficients of winners and of losers. b is the label scale times beta.
    """

    name: str
    data: Literal["rollouts", "pairs-offline", "pairs-online"]
    coefficients: Callable[..., Any]
    source: str
    uses_beta: bool = True  # has a strength; baselines have none and run once a seed
    reuses_batches: bool = False  # several epochs on one batch of rollouts
    objective: Callable[..., Array] | None = None  # on pairs, of the same arrays: what is maximised, [...]
    reference: bool = True  # whether it can be held to a reference
    critic: bool = False  # of language models: a learned value function is its baseline, over all tokens of a batch

    @property
    def on_pairs(self) -> bool:
        return self.data != "rollouts"

    @property
    def uses_reference(self) -> bool:
        return self.uses_beta and self.reference

    def seen(self, winner: Answers, loser: Answers, logp_ref_w: Array, logp_ref_l: Array) -> tuple[Any, ...]:
        """What `coefficients` and `objective` of pairs take before b."""
        if self.reference:
            return (margin(winner.logp, loser.logp, logp_ref_w, logp_ref_l),)
        return winner, loser


_BUILTIN = {
    a.name: a
    for a in (
        Algorithm("reinforce", "rollouts", reinforce, "Williams 1992"),
        Algorithm("rloo", "rollouts", rloo, "Ahmadian et al. 2024, arXiv 2402.14740"),
        Algorithm("grpo", "rollouts", grpo, "Shao et al. 2024, arXiv 2402.03300"),
        Algorithm("ppo", "rollouts", ppo, "Schulman et al. 2017, arXiv 1707.06347", reuses_batches=True, critic=True),
        Algorithm(
            "dpo-offline", "pairs-offline", dpo, "Rafailov et al. 2023, arXiv 2305.18290", objective=dpo_objective
        ),
        Algorithm("dpo-online", "pairs-online", dpo, "Guo et al. 2024, arXiv 2402.04792", objective=dpo_objective),
        Algorithm("ipo", "pairs-offline", ipo, "Azar et al. 2023, arXiv 2310.12036", objective=ipo_objective),
        Algorithm("best-of-n", "rollouts", best_of_n, "Stiennon et al. 2020, arXiv 2009.01325", uses_beta=False),
        Algorithm(
            "sft-preferred",
            "pairs-offline",
            sft_preferred,
            "imitation of winners",
            uses_beta=False,
            objective=sft_objective,
            reference=False,
        ),
    )
}
ALGORITHMS: plugins.Registry[Algorithm] = plugins.Registry(
    plugins.ALGORITHMS,
    _BUILTIN,
    "alignfirst.theory.objectives.Algorithm",
    lambda found: isinstance(found, Algorithm),
)
