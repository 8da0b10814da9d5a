"""Where modules are looked for: never beside the user by accident.

Python puts the current directory, or the folder of a script, before everything else: a file `json.py` or `re.py` there
would run in the place of Python's own. Processes that are started here look in neither; a module that a user names is
taken from the folder that was meant, alone.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

from alignfirst.errors import InputError

PYTHONPATH = "PYTHONPATH"
_taken: dict[str, str] = {}  # modules that were imported from a folder that was meant, by name: their files


def safe_path() -> list[str]:
    """Places of modules for a process that is started here: this process's, less those that Python added by itself.

    The current directory stays, behind all others, where PYTHONPATH names it; so does the folder of this package.
    """
    accidental, named = _accidental_folders(), {os.path.abspath(p) for p in _named_by_environment()}
    kept = [p for p in sys.path if p and os.path.realpath(p) not in accidental]
    last = [p for p in sys.path if p and os.path.realpath(p) in accidental and os.path.abspath(p) in named]
    package = str(Path(__file__).resolve().parents[1])
    if package not in map(os.path.realpath, (*kept, *last)):
        last.append(package)
    return [*kept, *last]


def environment() -> dict[str, str]:
    """This process's environment for one that is started here: an empty place in PYTHONPATH, which stands for the
    current directory, is left out."""
    given = dict(os.environ)
    if PYTHONPATH in given:
        given[PYTHONPATH] = os.pathsep.join(_named_by_environment())
    return given


def _named_by_environment() -> list[str]:
    return [place for place in os.environ.get(PYTHONPATH, "").split(os.pathsep) if place]


def _accidental_folders() -> set[str]:
    """The current directory and the folder of the script, real paths; none that packages are installed into."""
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = set[str]()
    with suppress(OSError):  # it was removed
        folders.add(os.path.realpath(os.getcwd()))
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None and getattr(sys.modules["__main__"], "__spec__", None) is None:
        folders.add(os.path.dirname(os.path.realpath(script)))
    return folders - {os.path.realpath(place) for place in found if place}


def import_from(folder: Path | None, name: str) -> ModuleType:
    """The module of this dotted name in a folder, or where it is installed if it is not there.

    Nothing else is imported from the folder: what the module itself imports must be installed, or be in the same
    package. Raises ImportError, InputError for a name that another module has, and whatever the module raises.
    """
    top = name.partition(".")[0]
    spec = None if folder is None else PathFinder.find_spec(top, [str(folder.resolve())])
    if spec is not None and (spec.origin is not None or find_spec(top) is None):  # a bare folder comes last
        _import_top(top, spec)
    return import_module(name)


def _import_top(name: str, spec: ModuleSpec) -> None:
    file, known = _file_of(spec), sys.modules.get(name)
    if known is not None:
        known_file = _file_of(getattr(known, "__spec__", None)) or getattr(known, "__file__", None)
        if known_file is not None and os.path.realpath(known_file) == os.path.realpath(file or ""):
            return
    if name in sys.stdlib_module_names or (known is not None and _taken.get(name) is None):
        cure = "Rename it: what imports the other one would get yours."
        raise InputError("a module of one's own needs a name that no other module has", f"{name} ({file})", cure)
    before = {n: sys.modules.pop(n) for n in list(sys.modules) if n == name or n.startswith(f"{name}.")}
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        sys.modules.update(before)
        raise
    _taken[name] = file or ""


def _file_of(spec: ModuleSpec | None) -> str | None:
    if spec is None:
        return None
    if spec.origin is not None:
        return spec.origin
    return next(iter(spec.submodule_search_locations or ()), None)
