"""Filters of a next-token distribution, by name: which tokens a language model may draw at all.

A new one is a function and a line of `FILTERS`; studies name it with its number, `distil.filter: top_p=0.9`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignfirst.errors import InputError


@dataclass(frozen=True)
class DrawingFilter:
    """`keeps(p, number)`: p [rows, vocabulary], from the likeliest token to the least likely -> which stay, bools.

    At least the first must. Written with methods that arrays and tensors share. `low < number < high` is allowed.
    """

    keeps: Callable[[Any, float], Any]
    low: float = 0.0
    high: float = math.inf


def top_p(p: Any, number: float) -> Any:
    """The fewest likeliest tokens that together have at least this probability (Holtzman et al. 2020, 1904.09751)."""
    return p.cumsum(-1) - p < number


FILTERS: dict[str, DrawingFilter] = {
    "top_p": DrawingFilter(top_p, high=1.0),
}


def parse_filter(text: str) -> tuple[DrawingFilter, float]:
    """The filter that `NAME=NUMBER` speaks of. Raises InputError for another name, or a number out of its range."""
    name, _, number = text.partition("=")
    found, example = FILTERS.get(name.strip()), "Write for example top_p=0.9, or leave it out."
    if found is None:
        raise InputError(f"a filter must be one of {', '.join(FILTERS)}, with its number", text, example)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not found.low < value < found.high:
        rule = f"the number of {name.strip()} must be above {found.low:g} and below {found.high:g}"
        raise InputError(rule, text, example)
    return found, value
