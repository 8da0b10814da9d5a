"""What takes long to make and is made once in a training: samples of a teacher, pairs, with what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Tally
from alignfirst.lm.training.processes import Team


def cached(name: str, make: Callable[[], State], tally: Tally, team: Team, checkpoints: Checkpoints | None) -> State:
    """What `make` gives, kept under `name` among the checkpoints and read from there where a training is resumed.

    `tally` then counts what making it cost, as if it had been made again. All processes of the team must call this.
    """
    if checkpoints is None:
        return make()

    def counted() -> State:
        made = make()
        return State({**made.numbers, "tally": asdict(tally.over(team))}, made.tensors)

    found = checkpoints.kept(team, name, counted)
    tally.set(found.numbers["tally"] if team.rank == 0 else asdict(Tally()))
    return found
