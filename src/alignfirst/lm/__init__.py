"""Language models: the only room that imports torch and transformers. Without them it says so, and how to get them."""

from __future__ import annotations

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


need("torch", "transformers", "safetensors")
