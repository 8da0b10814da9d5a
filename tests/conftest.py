"""What every room's tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run of CI: a failure there is one that can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
