"""alignfirst: run alignment and distillation in either order, and see where the order matters.

`run` plays a study and returns a `Run`; `load` opens one that is on disk; `audit` says whether a reference can be
aligned. All are imported on first use, so that `import alignfirst` stays quick.
"""

# `python -m alignfirst` starts with the current directory before all other places of modules: a `json.py` or `re.py`
# there would run in the place of Python's own. So this stands before any import.
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:  # Python is still looking for the module that it is to run
    _asked = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
    if _asked == __name__ or _asked.startswith(f"{__name__}."):
        del sys.path[0]

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
