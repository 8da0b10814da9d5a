"""Calls of rewards that a study did not write: whatever they do wrong fails one cell, with the row named."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import StageFailure, shorten
from alignfirst.lm.text.batch import Batch
from alignfirst.user_code import UserExit, checked, contained

Reward = Callable[[Batch], Any]  # rewards [B]: an array, a tensor or a list of numbers
T = TypeVar("T")


class Timeout(BaseException):
    """A call took too long. Not an Exception, so that the `except Exception` of what hangs does not swallow it."""


FAILURES = (Timeout, Exception)  # an interrupt from the keyboard is none, nor is `Terminated`


def rewards_of(reward: Reward, batch: Batch, where: str, timeout: float | None = None) -> NDArray[np.float64]:
    """Rewards of a batch, [B], finite.

    Raises StageFailure naming the row that gave NaN, an infinity, text, too few values, an exception or no answer
    within `timeout` seconds. `where` says when it happened, for example "update 3".
    """
    try:
        answer = _call(reward, batch, timeout)
    except FAILURES as e:
        find_failing_row(reward, batch, where, timeout, e)
    return checked(answer, len(batch), name_of(reward), where, lambda row: show(batch, row))


def _call(reward: Reward, batch: Batch, timeout: float | None) -> Any:
    with contained():
        return call_with_timeout(timeout, partial(reward, batch))


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
            _call(reward, one, timeout)
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
    if isinstance(error, UserExit):
        return f"raised {error}"
    return f"raised {type(error).__name__}: {shorten(str(error), 80)}"


def name_of(reward: Any) -> str:
    """What a person calls it: its own `name`, or that of the function."""
    return str(getattr(reward, "name", None) or getattr(reward, "__qualname__", None) or type(reward).__name__)


def show(batch: Batch, row: int) -> str:
    """The row's token ids, cut."""
    prompt, response = batch.text_ids(row)
    return f" (prompt {shorten(prompt[-8:], 40)}, response {shorten(response, 60)})"
