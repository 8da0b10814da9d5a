"""The benchmark meets its bars, `alignfirst run mog` its times, and docs/benchmarks.md has the figures. Ten minutes.

Needs the `bench` extra. Timings want a quiet machine: anything else that runs on its cores counts against us.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from common import ROOT, RUNS, cli, conclude, fresh, shell

failures = []
with tempfile.TemporaryDirectory() as cache:
    out = fresh(RUNS / "timed")
    for name, bar in (("cold", 120), ("warm", 40), ("nothing to do", 2)):
        if name == "warm":
            fresh(out)
        begin = time.perf_counter()
        done = cli("run", "mog", "--out", out, env=os.environ | {"NUMBA_CACHE_DIR": cache})
        seconds = time.perf_counter() - begin
        print(f"alignfirst run mog, {name}: {seconds:.1f} s (bar {bar} s), report included", flush=True)
        if seconds > bar or done.returncode:
            failures.append(f"{name}: {seconds:.1f} s, exit code {done.returncode}")
if shell(f"{sys.executable} benchmarks/mog_vs_eager.py", ROOT):
    failures.append("benchmarks/mog_vs_eager.py")
page = ROOT / "docs" / "benchmarks.md"
if not page.exists() or "mog_vs_eager" not in page.read_text():
    failures.append("docs/benchmarks.md does not show the benchmark")
conclude(failures)
