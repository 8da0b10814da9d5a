"""What is measured of a model, from log-probabilities of held-out texts and of its own. Arrays in, columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.nodes import as_float
from alignfirst.theory.coverage import COVERAGE_N, coverage_profile, kl_from_samples
from alignfirst.theory.diversity import distinct, repetition

F64 = NDArray[np.float64]
DISTINCT = (1, 2, 3)
REPEATED = 2


@dataclass(frozen=True)
class Judged:
    """N texts: their own tokens, and their log-probabilities under a few models, [N] nats, by the model's role."""

    lengths: NDArray[np.integer[Any]]
    logp: dict[str, F64]

    def mean(self, role: str) -> float:
        return float(self.logp[role].mean())

    def per_token(self, role: str) -> float:
        """Over all tokens of all texts, as perplexity is defined."""
        return float(self.logp[role].sum() / self.lengths.sum())


@np.errstate(invalid="ignore", divide="ignore")  # a model that broke gives infinities: nulls, not warnings
def describe(
    own: Judged, scored: Judged, star: Judged, text: Judged, rewards: F64, target: NDArray[np.bool_], tokens: Any
) -> dict[str, Any]:
    """Record columns. `own` are the model's texts (roles model, target, sft and perhaps reference), `scored` those of
    them that p_star was asked about (star), `star` p_star's texts (model), `text` the target model's (model, target).

    `rewards` and `target` (membership of T) and `tokens` [N, L] are those of the model's own texts.
    """
    found: dict[str, Any] = {
        "reward": rewards.mean(),
        "reward_sd": rewards.std(),
        "target_mass": target.mean(),
        "kl_to_sft": kl_from_samples(own.logp["model"], own.logp["sft"]).value,
        "repetition": repetition(tokens, REPEATED, own.lengths),
        "entropy": -own.mean("model"),
        "entropy_per_token": -own.per_token("model"),
    }
    if "reference" in own.logp:
        found["kl_to_reference"] = kl_from_samples(own.logp["model"], own.logp["reference"]).value
    for name, judged, role in (
        ("target_precision", own, "target"),
        ("target_recall", text, "model"),
        ("overall_precision", scored, "star"),
        ("overall_recall", star, "model"),
    ):
        found |= {name: judged.mean(role), f"{name}_per_token": judged.per_token(role)}
    profile = coverage_profile(text.logp["target"], text.logp["model"], np.ones(len(text.lengths)))
    return {name: as_float(float(value)) for name, value in found.items()} | {
        "coverage": {str(int(n)): round(float(share), 6) for n, share in zip(COVERAGE_N, profile, strict=True)},
        "distinct": {str(n): round(distinct(tokens, n, own.lengths), 6) for n in DISTINCT},
        "measured_on": len(own.lengths),
    }
