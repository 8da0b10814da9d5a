from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from alignfirst.report import build


def beside(name: str) -> ModuleType:
    """A helper in tests/report; tests are not a package, so it is loaded by its path."""
    known = f"report_{name}"
    if known not in sys.modules:
        path = Path(__file__).parents[1] / "report" / f"{name}.py"
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
def built(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ordinary size with its report."""
    run = synthetic.write(tmp_path_factory.mktemp("built") / "mog")
    build(run)
    return Path(run)
