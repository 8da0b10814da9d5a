from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from alignfirst.report import build


def _synthetic() -> ModuleType:
    """The helper beside this file; tests are not a package, so it is loaded by its path."""
    name = "report_synthetic"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "report" / "synthetic.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _synthetic()


@pytest.fixture(scope="session")
def built(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ordinary size with its report."""
    run = synthetic.write(tmp_path_factory.mktemp("built") / "mog")
    build(run)
    return Path(run)
