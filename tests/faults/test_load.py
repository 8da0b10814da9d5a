"""Large studies and large audits: memory stays bounded, listing stays quick, the page stays small."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
from fault_runs import MIXTURE, command
from ledger import Count

from alignfirst.store import Store

Counter = Callable[[str], Count]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*arguments: object, cwd: Path) -> tuple[float, float]:
    """Run a command to its end; seconds, and megabytes of it or of its largest worker."""
    begin = time.monotonic()
    with open(cwd / "stderr", "wb") as errors:
        process = subprocess.Popen(command(*arguments), cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (cwd / "stderr").read_text()[-2000:]
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def test_ten_thousand_cells(tmp_path: Path, count: Counter) -> None:
    """A mixture study of 10,000 cells takes less than 2 GB of memory, its store is listed within two seconds of CPU,
    and its page is no larger than 8 MB."""
    counted, study = count("load: 10,000 cells"), tmp_path / "study.yaml"
    betas = ", ".join(str(round(0.02 * 1.1**i, 6)) for i in range(25))
    study.write_text(MIXTURE.replace("beta: [0.05, 0.1, 0.15, 0.2, 0.3]", f"beta: [{betas}]").replace("10", "100", 1))
    with counted.trial():
        seconds, megabytes = run("run", study, "--out", "run", "--workers", 2, cwd=tmp_path)
        begin = time.process_time()
        keys = Store(tmp_path / "run" / "store").keys()
        listing = time.process_time() - begin
        page = (tmp_path / "run" / "report.html").stat().st_size
        counted.most(seconds=seconds, megabytes=megabytes, nodes=len(keys), listing_seconds=listing, page_mb=page / 1e6)
        assert len(keys) > 20_000
        assert megabytes < 2048
        assert listing < 2.0
        assert page <= 8_000_000


def test_an_audit_of_100_000_rows(tmp_path: Path, count: Counter) -> None:
    """An audit of 100,000 rows takes less than 1 GB of memory, and its page is no larger than 8 MB."""
    counted, rng = count("load: 100,000 rows"), np.random.default_rng(1)
    logp, reward = -rng.gamma(20, 2, 100_000), (rng.random(100_000) < 0.05).astype(float)
    with open(tmp_path / "rows.jsonl", "w") as f:
        for i, (q, r) in enumerate(zip(logp.tolist(), reward.tolist(), strict=True)):
            f.write(
                f'{{"kind":"sample","source":"reference","logp_reference":{q},"reward":{r},"prompt_id":{i % 500}}}\n'
            )
    with counted.trial():
        arguments = ("--log-probs", "rows.jsonl", "--target", "R >= 0.5", "--out", "out")
        seconds, megabytes = run("audit", *arguments, cwd=tmp_path)
        page = (tmp_path / "out" / "audit.html").stat().st_size
        counted.most(seconds=seconds, megabytes=megabytes, page_mb=page / 1e6)
        assert megabytes < 1024
        assert page <= 8_000_000
