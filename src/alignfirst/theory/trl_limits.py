"""What TRL's stable trainers do. Imports no library, so that a study is refused before torch is there."""

from __future__ import annotations

from alignfirst.errors import InputError

TRL_VERSION = 2  # of trainings by TRL: 2 takes pairs in the native trainer's order
# What a coefficient is of, and where the KL is. DPO's has no such choice.
LIMITS = {"dpo-offline": None, "rloo": ("sequence", "reward"), "grpo": ("token", "loss")}


def check_trl(algorithm: str, level: str, kl_in: str) -> None:
    """Raises InputError for what TRL cannot do, or does differently without saying so."""
    if algorithm not in LIMITS:
        rule = f"algorithms must be among {', '.join(LIMITS)} where align.trainer is trl"
        raise InputError(rule, algorithm, "Use the native trainer for the others.")
    fixed = LIMITS[algorithm]
    if fixed not in (None, (level, kl_in)):
        rule = "{} of TRL must have level: {} and kl_in: {}".format(algorithm, *fixed)
        raise InputError(rule, f"level: {level}, kl_in: {kl_in}", "That is what TRL does; or use the native trainer.")
