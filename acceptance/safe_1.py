"""Nothing foreign runs, nothing leaks, nothing lies: each kind of fault with at least two members, refused or survived
as promised. Each kind is also broken on purpose: with its guard removed, in a scratch copy, its tests must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, conclude


@dataclass(frozen=True)
class Kind:
    """Tests of one kind of fault, how many members they try, and a guard: the text of a file and what breaks it."""

    name: str
    members: int
    tests: tuple[str, ...]
    file: str
    guard: str
    broken: str


KINDS = (
    Kind(
        "files beside the user are imported by the command",
        9,
        ("tests/faults/test_foreign_code.py::test_nothing_beside_the_user_runs",),
        "__init__.py",
        "        del sys.path[0]\n",
        "        pass\n",
    ),
    Kind(
        "files beside the user are imported by workers, launchers and Ray's tasks",
        4,
        ("tests/faults/test_foreign_code.py::test_workers_start_apart",),
        "study/execution/worker.py",
        '[sys.executable, "-P", "-c", code]',
        '[sys.executable, "-c", "import json;" + code]',
    ),
    Kind(
        "a reward module brings others along from its folder, or takes the place of one of Python's",
        6,
        (
            "tests/faults/test_foreign_code.py::test_a_module_is_taken_from_its_folder_and_nothing_else",
            "tests/faults/test_foreign_code.py::test_a_module_of_a_name_that_is_taken",
        ),
        "module_search.py",
        "    top = name.partition",
        "    sys.path.insert(0, str(folder))\n    top = name.partition",
    ),
    Kind(
        "a reward, a world or a plug-in decides the exit code",
        15,
        ("tests/faults/test_user_exits.py",),
        "user_code.py",
        "    except SystemExit as e:",
        "    except ZeroDivisionError as e:",
    ),
    Kind(
        "a fork comes back twice",
        2,
        ("tests/faults/test_user_exits.py::test_a_reward_that_ends_its_process_at_work",),
        "user_code.py",
        "        if os.getpid() != process:",
        "        if os.getpid() < 0:",
    ),
    Kind(
        "a reward opens the gate of an audit",
        2,
        ("tests/lm/test_audit_models.py::test_a_reward_cannot_open_the_gate",),
        "study/audit/language_models.py",
        "    elif isinstance(given, str):",
        "    elif isinstance(given, str):\n        yield user_code.find(given, Path.cwd())\n    elif given == '':",
    ),
    Kind(
        "links lead out of a model's folder",
        10,
        ("tests/hostile/test_model_links.py",),
        "lm/models/file_checks.py",
        "            if target is None or not any(",
        "            if target is None and not any(",
    ),
    Kind(
        "what user code prints gets among the results",
        2,
        ("tests/faults/test_user_exits.py::test_prints_of_user_code",),
        "user_code.py",
        "        with redirect_stdout(sys.stderr):",
        "        with suppress():",
    ),
    Kind(
        "there is no place for compiled kernels, or only one that is not the user's own",
        4,
        ("tests/faults/test_homes.py",),
        "worlds/mog/compiled_cache.py",
        "    with suppress(RuntimeError):\n        return njit",
        "    if True:\n        return njit",
    ),
)


def holds(kind: Kind, source: Path) -> tuple[bool, str]:
    """Whether the tests of a kind pass against this source, and the last line that they said."""
    env = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *kind.tests]
    done = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True)
    said = done.stdout.strip().splitlines() or [done.stderr[-200:]]
    return done.returncode == 0 and "skipped" not in said[-1], said[-1]


def broken(kind: Kind, folder: Path) -> Path:
    """A copy of the source without the guard of a kind."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "alignfirst" / kind.file
    text = file.read_text()
    assert text.count(kind.guard) == 1, f"{kind.file} holds its guard once: {kind.guard!r}"
    file.write_text(text.replace(kind.guard, kind.broken))
    return source


failures = []
for kind in KINDS:
    assert kind.members >= 2
    well, said = holds(kind, ROOT / "src")
    with tempfile.TemporaryDirectory(prefix="alignfirst-safe-") as scratch:
        caught = not holds(kind, broken(kind, Path(scratch)))[0]
    print(f"{kind.name}: {kind.members} members, {said}; without its guard {'it fails' if caught else 'NOTHING FAILS'}")
    failures += [] if well else [f"{kind.name}: {said}"]
    failures += [] if caught else [f"{kind.name}: the tests pass without the guard in {kind.file}"]
conclude(failures)
