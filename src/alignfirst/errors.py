"""What can go wrong, in words: every refusal states the rule, the value and the cure."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every `alignfirst` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTLY_FAILED = 3
    GATE = 4
    INTERRUPTED = 130
    TERMINATED = 143


class AlignfirstError(Exception):
    """Base of all errors that the command line prints without a traceback."""

    exit_code: ExitCode = ExitCode.FAILED


class InputError(AlignfirstError):
    """A bad input, refused before any work is done.

    `rule` says what must hold, `value` what was given, `cure` what to do instead.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, rule: str, value: object, cure: str) -> None:
        self.rule, self.value, self.cure = rule, value, cure
        super().__init__(f"{rule}, got {shorten(value)}. {cure}")


class RefusedError(AlignfirstError):
    """An input that was refused in another process: its words are an InputError's."""

    exit_code = ExitCode.USAGE


class StoreError(AlignfirstError):
    """The store could not be read or written (disk full, no permission, damaged file)."""


class RunLockedError(AlignfirstError):
    """Another process works on the same run directory."""


class Terminated(SystemExit):
    """SIGTERM, raised where something is to be given back or written down before the process leaves."""

    def __init__(self) -> None:
        super().__init__(int(ExitCode.TERMINATED))


class GateError(AlignfirstError):
    """An audit did not say go where that was required. Nothing is wrong; nothing more is trained."""

    exit_code = ExitCode.GATE


class StageFailure(AlignfirstError):
    """One cell could not be computed (a NaN, a diverging run); its siblings go on."""


def shorten(value: object, limit: int = 120) -> str:
    """`repr` of a value, printable and cut, so that hostile input cannot flood or steer a terminal."""
    text = value if isinstance(value, str) else repr(value)
    text = printable(text[: 4 * limit])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """Text with every character that could steer a terminal escaped; line breaks too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
