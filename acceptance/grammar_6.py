"""The benchmarks of language models meet their bars, and docs/benchmarks.md shows them.

Sampling against `generate`, scoring against full log_softmax, the native step against TRL's, the study with its store
against every recipe from its start. A quarter of an hour; timings are ratios within one run, but want a quiet machine.

    python acceptance/grammar_6.py [--run DIR]      # DIR: a finished run of `grammar`, for the whole study's figure
"""

from __future__ import annotations

import os
import sys

from common import ROOT, conclude, shell

BENCHMARKS = {
    "lm_sample_score.py": "",
    "lm_vs_trl.py": "",
    "grammar_store.py": " ".join(sys.argv[1:]),
}
environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
page, failures = (ROOT / "docs" / "benchmarks.md").read_text(), []
for name, arguments in BENCHMARKS.items():
    if shell(f"{sys.executable} benchmarks/{name} {arguments}", ROOT, **environment):
        failures.append(f"benchmarks/{name}: a bar was missed")
    if f"benchmarks/{name}" not in page:
        failures.append(f"docs/benchmarks.md does not show benchmarks/{name}")
conclude(failures)
