"""The `alignfirst` command: parse, call, print. One file a command; each imports what it needs when it runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from alignfirst import signals


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (see `errors.ExitCode`)."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signals.raise_terminated)
    try:
        from alignfirst.cli.app import app
        from alignfirst.cli.out import tolerate_any_text

        tolerate_any_text()
        app(args=None if arguments is None else list(arguments), prog_name="alignfirst")
    except KeyboardInterrupt:  # before a command has begun; later ones are met in `app.guard`
        sys.exit(130)
    finally:  # all is done and the exit code decided: a signal now would only give another one
        signals.ignore(*signals.ENDING)
