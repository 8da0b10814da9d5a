"""Functions that a user wrote: found, called, and kept from deciding how a command ends.

Whatever such a function does (raise SystemExit, leave by `os._exit`, fork and return twice) fails what it was asked
for. Where a command asks for it itself, it works in a process of its own: JSON lines in and out.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import InputError, StageFailure, Terminated, shorten
from alignfirst.module_search import environment, import_from, safe_path
from alignfirst.signals import die_with_parent, ignore

Function = Callable[[list[str], list[str]], Any]  # prompts, completions -> one number each
TRIED = b"tried\n"
HINT = "Put the module where the command is started, what it needs beside it into the same package, or install them."


class UserExit(Exception):
    """User code raised what ends a process; in words."""


@contextmanager
def contained() -> Iterator[None]:
    """What user code in the block raises to end the process becomes `UserExit`; a copy of the process that comes out
    of the block, after a fork, ends there; what it prints goes to stderr.

    SIGTERM, and SIGINT where it is not ignored, still interrupt.
    """
    process = os.getpid()
    try:
        with redirect_stdout(sys.stderr):  # results alone go to stdout
            yield
    except Terminated:
        raise
    except SystemExit as e:
        raise UserExit(f"SystemExit: {e}") from e
    except KeyboardInterrupt as e:
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            raise
        raise UserExit("KeyboardInterrupt") from e
    finally:
        if os.getpid() != process:
            os._exit(1)


def find(spec: str, folder: Path | None) -> Function:
    """The function `module:function` of the module in `folder`, or else of an installed one.

    Importing a module runs it. Raises InputError where it cannot be imported, whatever it raises, and where there is
    no such function.
    """
    module, colon, name = spec.partition(":")
    if not (colon and module and name):
        raise InputError("a reward function is named as module:function", spec, "For example my_rewards:helpful.")
    try:
        with contained():
            found = getattr(import_from(folder, module), name)
    except InputError:
        raise
    except UserExit as e:
        cure = f"It raised {e}. Let it do so only under `if __name__ == '__main__'`."
        raise InputError("the reward function must be importable", spec, cure) from e
    except Exception as e:  # whatever somebody else's module raises while it is imported
        raise InputError("the reward function must be importable", spec, f"{_said(e)}. {HINT}") from e
    if not callable(found):
        raise InputError("the reward must be a function", spec, "It gets two lists of texts: prompts, completions.")
    function: Function = found
    return function


def rewards(function: Function, prompts: list[str], completions: list[str], name: str, where: str) -> list[float]:
    """What a function says of texts, as finite numbers. Raises StageFailure for anything else that it does."""
    try:
        with contained():
            answer = function(prompts, completions)
    except UserExit as e:
        raise StageFailure(f"reward {name} raised {e}") from e
    except Exception as e:
        raise StageFailure(f"reward {name} raised {_said(e)}") from e
    return [float(x) for x in checked(answer, len(completions), name, where)]


def checked(
    answer: Any, n: int, name: str, where: str, shown: Callable[[int], str] = lambda row: ""
) -> NDArray[np.float64]:
    """An answer as n finite numbers; StageFailure otherwise."""
    values = _as_list(answer)
    if values is None:
        raise StageFailure(f"reward {name} must return one number a row, got {_kind(answer)} at {where}")
    bad = next((i for i, v in enumerate(values) if not _is_number(v)), None)
    if bad is not None and bad < n:
        raise StageFailure(
            f"reward {name} returned {shorten(values[bad], 40)} for row {bad} at {where}{shown(bad)}; "
            "it must be a finite number"
        )
    if len(values) != n:
        missing = f"none for row {len(values)}" if len(values) < n else f"row {n} does not exist"
        raise StageFailure(f"reward {name} returned {len(values)} values for {n} rows at {where}: {missing}")
    return np.array([float(v) for v in values])


def _as_list(answer: Any) -> Sequence[Any] | None:
    """One-dimensional answers only; a string is not a list of numbers."""
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().float().numpy()
    if isinstance(answer, np.ndarray):
        return answer.tolist() if answer.ndim == 1 else None
    return list(answer) if isinstance(answer, Sequence) and not isinstance(answer, str | bytes) else None


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # text, None, a list, an integer beyond floats
        return False


def _kind(answer: Any) -> str:
    shape = getattr(answer, "shape", None)
    return f"{type(answer).__name__} of shape {tuple(shape)}" if shape is not None else type(answer).__name__


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 200)}"


def try_import(module: str) -> None:
    """Import a module in a process of its own first. Raises UserExit where that ends the process, or comes back twice;
    what else an import may raise is left to the import itself."""
    code = f"import sys; sys.path[:] = {sys.path!a}; from {__name__} import tried; tried({module!a})"
    arguments = [sys.executable, "-P", "-c", code]
    done = subprocess.run(arguments, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.stdout != TRIED:
        times = done.stdout.count(TRIED)
        what = f"came back {times} times" if times else f"ended a process, exit code {done.returncode}"
        raise UserExit(f"its import {what}")


def tried(module: str) -> None:
    """The other side of `try_import`."""
    die_with_parent()
    _, answers = claim_streams()
    with suppress(Exception):
        import_module(module)
    answers.write(TRIED)
    answers.flush()
    os._exit(0)


# -- in a process of its own ------------------------------------------------------------------------------------------


class FunctionProcess:
    """A function of texts in a process of its own, from `find` to `close`.

    Raises InputError where `find` does, or where the process ends meanwhile.
    """

    def __init__(self, spec: str, folder: Path) -> None:
        self.spec = spec
        code = f"import sys; sys.path[:] = {safe_path()!a}; from {__name__} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            process_group=0,  # Ctrl-C reaches this process only, which then closes that one
        )
        try:
            answer = self._ask({"spec": spec, "folder": str(folder)})
        except BaseException:
            self.close()
            raise
        if "refused" in answer:
            self.close()
            raise InputError(*answer["refused"])
        if "ended" in answer:
            self.close()
            cure = f"Its import ended the process, {answer['ended']}. {HINT}"
            raise InputError("the reward function must be importable", spec, cure)

    def __call__(self, prompts: list[str], completions: list[str], where: str) -> list[float]:
        """One number a row. Raises StageFailure as `rewards` does, and where the process ends meanwhile."""
        answer = self._ask({"prompts": prompts, "completions": completions, "where": where})
        if "ended" in answer:
            raise StageFailure(f"reward {self.spec} ended its process, {answer['ended']}, at {where}")
        if "failed" in answer:
            raise StageFailure(answer["failed"])
        return [float(x) for x in answer["rewards"]]

    def close(self) -> None:
        """End the process at once, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with suppress(BrokenPipeError):  # it has ended; there will be no answer
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        line = stdout.readline()
        if not line.endswith(b"\n"):
            self._process.kill()  # something may still hold the other end
            return {"ended": f"exit code {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def claim_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for the parent alone: user code reads nothing, and what it prints goes to stderr."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return questions, answers


def main() -> None:
    """Find the function that the first line names, then answer lines of texts until they end."""
    ignore(signal.SIGINT)  # the parent decides
    die_with_parent()
    questions, answers = claim_streams()

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    start = json.loads(questions.readline())
    try:
        function = find(start["spec"], Path(start["folder"]))
    except InputError as e:
        say({"refused": [e.rule, shorten(e.value), e.cure]})
        os._exit(0)
    say({"found": True})
    for line in questions:
        asked = json.loads(line)
        try:
            say({"rewards": rewards(function, asked["prompts"], asked["completions"], start["spec"], asked["where"])})
        except StageFailure as e:
            say({"failed": str(e)})
    os._exit(0)
