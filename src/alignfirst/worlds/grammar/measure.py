"""What is measured of a model, from log-probabilities of held-out text and of its own. Arrays in, columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alignfirst.nodes import as_float
from alignfirst.theory.coverage import COVERAGE_N, coverage_profile, kl_from_samples
from alignfirst.theory.diversity import distinct, repetition
from alignfirst.worlds.grammar.language import F64, Language, Tokens

DISTINCT = (1, 2, 3)
REPEATED = 2
LOGP = ("target_precision", "target_recall", "overall_precision", "overall_recall", "entropy")


@dataclass(frozen=True)
class Text:
    """N sequences under their prompts, and the model's log-probability of each."""

    tokens: Tokens  # [N, L]
    prompt: Tokens  # [N]
    logq: F64  # [N]


@np.errstate(invalid="ignore")  # a model that broke gives infinities: they become nulls, not warnings
def describe(
    language: Language, rewards: F64, own: Text, star: Text, target: Text, logp_sft: F64, logp_ref: F64 | None
) -> dict[str, Any]:
    """Record columns from three independent sets: the model's own samples, and held-out ones of p_star and p_target.

    `rewards`, `logp_sft` and `logp_ref` are those of the model's own samples, [N].
    """
    posterior = language.posterior(own.tokens, own.prompt)  # [N, K]
    logp_target = language.logp_target(target.tokens)
    found: dict[str, Any] = {
        "reward": rewards.mean(),
        "reward_sd": rewards.std(),
        "target_mass": posterior[:, language.target].mean(),
        "target_precision": language.logp_target(own.tokens).mean(),
        "target_recall": target.logq.mean(),
        "overall_precision": language.logp_star(own.tokens, own.prompt).mean(),
        "overall_recall": star.logq.mean(),
        "kl_to_sft": kl_from_samples(own.logq, logp_sft).value,
        "entropy": -own.logq.mean(),
        "repetition": repetition(own.tokens, REPEATED),
    }
    if logp_ref is not None:
        found["kl_to_reference"] = kl_from_samples(own.logq, logp_ref).value
    found |= {f"{name}_per_token": found[name] / language.length for name in LOGP}
    profile = coverage_profile(logp_target, target.logq, np.ones(len(logp_target)))
    return {name: as_float(float(value)) for name, value in found.items()} | {
        "coverage": {str(int(n)): round(float(share), 6) for n, share in zip(COVERAGE_N, profile, strict=True)},
        "posterior": by_behaviour(language, posterior.mean(0)),
        "distinct": {str(n): round(distinct(own.tokens, n), 6) for n in DISTINCT if n <= language.length},
        "by_prompt": by_prompt(language, posterior, rewards, own, star, target) if language.prompts > 1 else None,
        "measured_on": len(own.tokens),
    }


def by_behaviour(language: Language, mass: F64) -> dict[str, float]:
    names = [*(str(k + 1) for k in range(language.target)), "target"]
    return {name: round(float(m), 6) for name, m in zip(names, mass, strict=True)}


def by_prompt(
    language: Language, posterior: F64, rewards: F64, own: Text, star: Text, target: Text
) -> dict[str, dict[str, float | None]]:
    """The measurements that differ from prompt to prompt, for each of them: 1, 2, .."""
    found: dict[str, dict[str, float | None]] = {}
    for p in range(language.prompts):
        mine = own.prompt == p
        values = {
            "reward": rewards[mine],
            "target_mass": posterior[mine, language.target],
            "target_recall": target.logq[target.prompt == p],
            "overall_recall": star.logq[star.prompt == p],
        }
        found[str(p + 1)] = {name: as_float(float(v.mean())) for name, v in values.items()}
    return found
