"""Packages that the light install leaves out, and whether a hub may be asked."""

from __future__ import annotations

import os
from importlib.util import find_spec

from alignfirst.errors import InputError

EXTRAS = {"lm_eval": "lm-eval"}  # of packages that the extra `lm` leaves out


def need(*modules: str) -> None:
    """Raise InputError with the cure unless every one of the modules is installed. Imports none of them."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InputError(
            "language models need packages that the light install leaves out",
            f"no {', '.join(missing)}",
            f"Install them: pip install 'alignfirst[{EXTRAS.get(missing[0], 'lm')}]'.",
        )


def offline() -> bool:
    """HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE), also when it was set after the hub library was imported."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in names)
