"""What every room's tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# One thread, as in the runner's workers: set before NumPy is imported. A sum over several threads ends in other
# digits, and threads of several processes on few cores only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# The same examples in every run of CI: a failure there is one that can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
