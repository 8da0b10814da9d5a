"""Studies of 200 tiny cells, and their uninterrupted runs: what every fault must come back to."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import GRAMMAR, MIXTURE, content, finish


class Study:
    """A study, its uninterrupted run, and how long that took."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "study.yaml"
        self.path.write_text(text)
        self.whole = folder / "whole"
        finish(self.path, folder / "warm")  # compiles what is compiled once a machine
        begin = time.monotonic()
        finish(self.path, self.whole)
        self.seconds = time.monotonic() - begin
        self.content = content(self.whole)
        self.nodes = len(self.content["store"])


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("mixture"), MIXTURE)


@pytest.fixture(scope="session")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("grammar"), GRAMMAR)
