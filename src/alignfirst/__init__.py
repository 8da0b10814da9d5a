"""alignfirst: run alignment and distillation in either order, and see where the order matters.

`run` plays a study and returns a `Run`; `load` opens one that is on disk; `audit` says whether a reference can be
aligned. All are imported on first use, so that `import alignfirst` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignfirst.version import __version__

if TYPE_CHECKING:
    from alignfirst.api import Run, audit, load, run
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.study.audit.request import Plans

__all__ = ["Plan", "Plans", "Run", "__version__", "audit", "load", "run"]
MODULES = {"Plan": "auditing.gated_prediction", "Plans": "study.audit.request"} | dict.fromkeys(
    ("Run", "audit", "load", "run"), "api"
)


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(f"alignfirst.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
