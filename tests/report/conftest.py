from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from alignfirst.report import build


@pytest.fixture(scope="session")
def built(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ordinary size with its report."""
    run = synthetic.write(tmp_path_factory.mktemp("built") / "mog")
    build(run)
    return Path(run)
