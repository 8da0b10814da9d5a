"""The application: its commands, and what happens when one fails."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from alignfirst.cli.commands import audit, compare, export, init, ls, presets, report, run, show, status
from alignfirst.cli.out import clean, complain
from alignfirst.errors import AlignfirstError, ExitCode, shorten
from alignfirst.version import __version__

DEBUG = "ALIGNFIRST_DEBUG"


# What asking whether a path is there may raise; "it is not there" does not.
PATHS = (errno.ENAMETOOLONG, errno.EACCES)


@contextmanager
def guard() -> Iterator[None]:
    """Turn what a command may raise into one clean message and an exit code; with ALIGNFIRST_DEBUG=1, a traceback."""
    debug = os.environ.get(DEBUG, "") not in {"", "0"}
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except AlignfirstError as e:
        if debug:
            raise
        complain(str(e))
        raise SystemExit(e.exit_code) from e
    except KeyboardInterrupt as e:
        complain("interrupted. What was finished is kept: the same command again goes on from there.")
        raise SystemExit(ExitCode.INTERRUPTED) from e
    except BrokenPipeError as e:  # `alignfirst ls | head`: nobody is reading any more
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ExitCode.FAILED) from e
    except Exception as e:
        if debug:
            raise
        if isinstance(e, OSError) and e.errno in PATHS:
            complain(f"a path must be one that can be looked at, got {shorten(str(e.filename))}: {e.strerror}.")
            raise SystemExit(ExitCode.USAGE) from e
        complain(f"unexpected {type(e).__name__}: {shorten(str(e), 300)}")
        complain(f"this is a fault of alignfirst {__version__}. {DEBUG}=1 shows where; please report it with that.")
        raise SystemExit(ExitCode.FAILED) from e


class Command(TyperCommand):
    """A command that fails in words."""

    def invoke(self, ctx: Any) -> Any:
        with guard():
            result = super().invoke(ctx)
            sys.stdout.flush()  # what is left in the buffer may fail, too, and at exit nobody would meet it
            return result


class Commands(TyperGroup):
    """The group of commands; what was typed wrong is repeated without what could steer a terminal."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _escaped():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _escaped():
            return super().invoke(ctx)


@contextmanager
def _escaped() -> Iterator[None]:
    try:
        yield
    except Exception as e:
        if hasattr(e, "format_message") and isinstance(vars(e).get("message"), str):  # a usage error
            vars(e)["message"] = clean(vars(e)["message"])
        raise


app = typer.Typer(
    name="alignfirst",
    cls=Commands,
    help="Align before you distil? Run both orders, see where the order matters, and know why.",
    epilog="Start with: alignfirst run mog-quick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run.run,
    report.report,
    audit.audit,
    init.init,
    compare.compare,
    export.export,
    ls.ls,
    status.status,
    presets.presets,
    show.show,
):
    app.command(cls=Command)(command)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"alignfirst {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass
