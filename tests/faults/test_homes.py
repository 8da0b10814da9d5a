"""Installations that may not be written, users without a home: kernels are compiled all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import Count

from alignfirst.worlds.mog import compiled_cache

CODE = """
from numba.core import caching

def refuse(self):
    raise OSError("read-only")

for name in dir(caching):  # with an underscore in older versions
    if "InTree" in name or "UserWide" in name:
        getattr(caching, name).ensure_cache_path = refuse
from alignfirst.worlds.mog.compiled_cache import compile_cached

def double(x):
    return 2 * x

function = compile_cached(double)
print(function(21), function.stats.cache_path)
"""


def compiled(folder: Path, **environment: str) -> list[str]:
    (folder / "program.py").write_text(CODE)
    given = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | environment
    arguments = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(arguments, capture_output=True, text=True, env=given, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_place_for_compiled_kernels(tmp_path: Path, count: Callable[[str], Count]) -> None:
    """Where neither installation nor home may be written, kernels go to a private temporary folder, or nowhere."""
    counted, folder = count("homes: no place for compiled kernels"), tmp_path / "tmp"
    folder.mkdir()
    with counted.trial():
        value, place = compiled(tmp_path, TMPDIR=str(folder))
        assert value == "42" and Path(place).is_relative_to(folder) and any(Path(place).iterdir())
    private = folder / f"alignfirst-numba-{os.getuid()}"
    with counted.trial():
        private.chmod(0o777)  # anybody could have put code there
        assert compiled(tmp_path, TMPDIR=str(folder)) == ["42", "None"]


def test_a_temporary_folder_of_others_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[str], Count]
) -> None:
    """A temporary folder that is a link, or somebody else's, is not used for what will be executed."""
    counted = count("homes: temporary folders of others")
    monkeypatch.setattr(compiled_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    place = tmp_path / f"alignfirst-numba-{os.getuid()}"
    with counted.trial():
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
        assert compiled_cache.private_folder() is None
        place.unlink()
    with counted.trial():
        assert compiled_cache.private_folder() == place
        monkeypatch.setattr(compiled_cache.os, "getuid", lambda: os.geteuid() + 1)
        (tmp_path / f"alignfirst-numba-{os.geteuid() + 1}").mkdir(mode=0o700)
        assert compiled_cache.private_folder() is None
