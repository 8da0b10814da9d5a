"""Fresh clone, fresh venv: `make demo`, then `make test`, nothing else installed. About ten minutes."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from common import ROOT, conclude, shell

with tempfile.TemporaryDirectory() as folder:
    clone = Path(folder) / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    failures = [f"make {goal}" for goal in ("demo", "test") if shell(f"make {goal}", clone)]
    report = clone / "runs" / "mog" / "report.html"
    if not report.exists():
        failures.append("make demo left no report")
    else:
        print(f"report: {report.stat().st_size / 1e6:.1f} MB")
conclude(failures)
