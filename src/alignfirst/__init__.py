"""alignfirst: run alignment and distillation in either order, and see where the order matters.

`run` plays a study and returns a `Run`; `load` opens one that is on disk. Both are imported on first use, so that
`import alignfirst` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignfirst.version import __version__

if TYPE_CHECKING:
    from alignfirst.api import Run, load, run

__all__ = ["Run", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in {"Run", "load", "run"}:
        from alignfirst import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
