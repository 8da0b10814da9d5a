"""What every room's tests share."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from ledger import Count, Ledger

# One thread, as in the runner's workers: set before NumPy is imported. A sum over several threads ends in other
# digits, and threads of several processes on few cores only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# What a background job inherits, and would hand on: the runs that tests interrupt must be interruptible.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run of CI: a failure there is one that can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


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
    return lambda name: request.config.stash[LEDGER].of(name, " ".join(promise.split()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Any = session.config.getoption("--figures")
    if path:
        Path(path).write_text(json.dumps(session.config.stash[LEDGER].plain(), indent=2) + "\n")
