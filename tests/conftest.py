"""What every room's tests share."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import typer.testing
from hypothesis import settings

for _room in ("faults", "hostile"):
    sys.path.insert(0, str(Path(__file__).parent / _room))

from ledger import Count, Ledger

# One thread, as in the runner's workers: set before NumPy is imported. A sum over several threads ends in other
# digits, and threads of several processes on few cores only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# What a background job inherits, and would hand on: the runs that tests interrupt must be interruptible.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The command line is built once, not for each of the thousands that tests give it: nine tenths of their time.
typer.testing._get_command = cache(typer.main.get_command)

# The same examples in every run of the fast lane: a failure there is one that can be repeated. The slow lane looks for
# new ones (`--hypothesis-profile random`).
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("repeatable")


def beside(name: str) -> ModuleType:
    """A helper in tests/report; tests are not a package, so it is loaded by its path."""
    known = f"report_{name}"
    if known not in sys.modules:
        path = Path(__file__).parent / "report" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(known, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Runs made up for the report's tests."""
    return beside("synthetic")


@pytest.fixture(scope="session")
def audits() -> ModuleType:
    """Audits made up for the tests of their page."""
    return beside("audit_pages")


@pytest.fixture(scope="session")
def of_text() -> ModuleType:
    """Makes a synthetic run one of text: `synthetic.write(path, spec, of_text.TextSpec())`."""
    return beside("synthetic_text")


@pytest.fixture(scope="session")
def of_own() -> ModuleType:
    """Makes a synthetic run one of own models: `synthetic.write(path, spec, of_own.OwnSpec())`."""
    return beside("synthetic_own")


LEDGER = pytest.StashKey[Ledger]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", metavar="FILE", help="write what the fault campaign tried and what survived, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[..., Count]:
    """`count("kill: mixture")`: where a test of a promise writes down what it tried and what survived."""
    promise = (request.function.__doc__ or "").strip().split("\n\n")[0]
    assert promise, "a test that counts states the promise that it proves"
    test, said = request.node.nodeid.partition("[")[0], " ".join(promise.split())
    return lambda name: request.config.stash[LEDGER].of(name, test, said)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Any = session.config.getoption("--figures")
    if path:
        Path(path).write_text(json.dumps(session.config.stash[LEDGER].plain(), indent=2) + "\n")
