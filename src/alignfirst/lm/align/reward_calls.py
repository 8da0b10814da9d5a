"""Calls of rewards that a study did not write: whatever they do wrong fails one cell, with the row named."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import StageFailure, Terminated, shorten
from alignfirst.lm.text.batch import Batch

Reward = Callable[[Batch], Any]  # rewards [B]: an array, a tensor or a list of numbers
T = TypeVar("T")


class Timeout(BaseException):
    """A call took too long. Not an Exception, so that the `except Exception` of what hangs does not swallow it."""


FAILURES = (Timeout, Exception, SystemExit)  # an interrupt from the keyboard is none, nor is `Terminated`


def rewards_of(reward: Reward, batch: Batch, where: str, timeout: float | None = None) -> NDArray[np.float64]:
    """Rewards of a batch, [B], finite.

    Raises StageFailure naming the row that gave NaN, an infinity, text, too few values, an exception or no answer
    within `timeout` seconds. `where` says when it happened, for example "update 3".
    """
    try:
        answer = call_with_timeout(timeout, partial(reward, batch))
    except Terminated:
        raise
    except FAILURES as e:
        find_failing_row(reward, batch, where, timeout, e)
    return checked(answer, len(batch), name_of(reward), where, lambda row: show(batch, row))


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


def call_with_timeout(seconds: float | None, call: Callable[[], T]) -> T:
    """The result of a call, or `Timeout`. In the main thread the call is truly stopped, elsewhere it is left behind."""
    if seconds is None:
        return call()
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _alarm(seconds):
            return call()
    return _in_thread(seconds, call)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def raise_timeout(*_: Any) -> NoReturn:
        raise Timeout

    handler = signal.signal(signal.SIGALRM, raise_timeout)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)  # somebody else's clock goes on
        signal.signal(signal.SIGALRM, handler)


def _in_thread(seconds: float, call: Callable[[], T]) -> T:
    result: list[T] = []
    error: list[BaseException] = []

    def work() -> None:
        try:
            result.append(call())
        except BaseException as e:
            error.append(e)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if error:
        raise error[0]
    if not result:
        raise Timeout
    return result[0]


def find_failing_row(reward: Reward, batch: Batch, where: str, timeout: float | None, error: BaseException) -> NoReturn:
    """Raise StageFailure naming the first row that fails when each is asked for alone; all, where none does."""
    name, problem = name_of(reward), _what_happened(error, timeout)
    for row in range(len(batch)):
        one = batch.rows(slice(row, row + 1))
        try:
            call_with_timeout(timeout, partial(reward, one))
        except Terminated:
            raise
        except FAILURES as e:
            raise StageFailure(
                f"reward {name} {_what_happened(e, timeout)} for row {row} at {where}{show(batch, row)}"
            ) from error
    raise StageFailure(
        f"reward {name} {problem} for rows 0 to {len(batch) - 1} together at {where}, for none of them alone"
    ) from error


def _what_happened(error: BaseException, timeout: float | None) -> str:
    if isinstance(error, Timeout):
        return f"gave no answer within {timeout:g} s"
    return f"raised {type(error).__name__}: {shorten(str(error), 80)}"


def name_of(reward: Any) -> str:
    """What a person calls it: its own `name`, or that of the function."""
    return str(getattr(reward, "name", None) or getattr(reward, "__qualname__", None) or type(reward).__name__)


def show(batch: Batch, row: int) -> str:
    """The row's token ids, cut."""
    prompt, response = batch.text_ids(row)
    return f" (prompt {shorten(prompt[-8:], 40)}, response {shorten(response, 60)})"


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
