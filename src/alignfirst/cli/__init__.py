"""The `alignfirst` command: parse, call, print. One file a command; each imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (see `errors.ExitCode`)."""
    try:
        from alignfirst.cli.app import app
        from alignfirst.cli.out import tolerate_any_text

        tolerate_any_text()
        app(args=None if arguments is None else list(arguments), prog_name="alignfirst")
    except KeyboardInterrupt:  # before a command has begun; later ones are met in `app.guard`
        sys.exit(130)
