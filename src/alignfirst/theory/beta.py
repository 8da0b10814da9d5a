"""The strength beta of the KL term: one rule for studies, audits and trainings."""

from __future__ import annotations

import math

from alignfirst.errors import InputError

BETAS = (1e-5, 1e5)  # beyond, exp(reward / beta) leaves floating point


def checked_beta(beta: float) -> float:
    """`beta` as it is. Raises InputError unless it is finite, above 0 and within `BETAS`."""
    if not (math.isfinite(beta) and beta > 0):
        why = "it must be a number" if not math.isfinite(beta) else "the optimum runs away from the reward"
        why = "the optimum ignores the reference" if beta == 0 else why
        raise InputError("beta must be > 0", f"{beta:g}: {why}", "For a near-greedy policy use 1e-3.")
    if not BETAS[0] <= beta <= BETAS[1]:
        rule = f"beta must be between {BETAS[0]:g} and {BETAS[1]:g}"
        raise InputError(rule, f"{beta:g}", "Beyond, exp(reward / beta) leaves floating point.")
    return beta
