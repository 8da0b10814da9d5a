"""Contracts: every algorithm's own optimum, gradients, random streams, seeds in halves, kernel against NumPy."""

from __future__ import annotations

import sys

from common import ROOT, conclude, shell

conclude([] if shell(f"{sys.executable} -m pytest -q tests/contracts", ROOT) == 0 else ["tests/contracts"])
