"""Where compiled kernels are kept: beside the source, in the user's cache, else in a temporary folder, else nowhere."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba import njit


def compile_cached(function: Callable[..., Any], **options: Any) -> Any:
    """`njit` with a cache on disk where there is a place for one.

    An installation that may not be written and a user without a home have none: numba would raise RuntimeError.
    """
    with suppress(RuntimeError):
        return njit(cache=True, **options)(function)
    config: Any = numba.config
    given = config.CACHE_DIR
    folder = private_folder()
    if folder is not None:
        config.CACHE_DIR = str(folder)
        try:
            with suppress(RuntimeError):
                return njit(cache=True, **options)(function)
        finally:
            config.CACHE_DIR = given
    return njit(**options)(function)


def private_folder() -> Path | None:
    """A temporary folder that this user alone may write, for all processes; None where there cannot be one.

    What is in it is executed, so that one that somebody else has made, or a link, is not used.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"alignfirst-numba-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except (OSError, AttributeError):  # no place for temporary files; no users on this system
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if mine else None
