"""What the scripts on a user's own models share: the preference data that they are given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "own-models.yaml"


def pairs_file(doc: str | None) -> Path:
    """The preference file that the script was given; where there is none, exit 2 with a sentence."""
    given = sys.argv[-1] if len(sys.argv) > 1 else os.environ.get("ALIGNFIRST_PAIRS")
    given = given and given.removeprefix("--set").strip("=").removeprefix("data=")
    if not given or not Path(given).is_file():
        print(f"skipped: {'no file was named' if not given else f'there is no file {given}'}. {doc}")
        sys.exit(2)
    return Path(given).resolve()
