"""Learning rates of alignments over their updates: the share of `learning_rate` that an update is taken with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

CONSTANT = "constant"
# From the share of the updates that are done, in [0, 1), to a share > 0 of the rate. A new schedule is one line here.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    CONSTANT: lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
}
