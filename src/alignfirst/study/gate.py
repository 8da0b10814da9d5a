"""`--require-go`: every alignment waits until all audits that can be made before it are made, and said go.

An alignment's level is the number of alignments before it in its recipe. All audits of a level are judged together, so
that a person sees every verdict before anything of that level is trained, and nothing of it is unless all are go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from alignfirst.errors import GateError, InputError
from alignfirst.store import Store
from alignfirst.study import audits
from alignfirst.study.plan import Plan
from alignfirst.study.schedule import Schedule
from alignfirst.worlds.protocol import World

MOST = 5  # alignments that the message names
Say = Callable[[str], None]
Against = tuple[str, str, str]  # name of an alignment, verdict, reason


@dataclass(frozen=True)
class Asked:
    """An alignment that is still to be trained, and where its verdict is."""

    name: str
    audit: str | None
    unaudited: str | None


def require_audited(world: World) -> None:
    """Raises InputError in a world whose studies are not audited: there nothing could ever be a go."""
    if "audit" not in world.versions:
        cure = "Leave --require-go out, or audit the models with `alignfirst audit --require-go`."
        raise InputError("--require-go needs a world whose studies are audited", f"world {world.name}", cure)


class Gate:
    """Holds alignments back; `advance` lets a level go or raises GateError."""

    def __init__(self, plan: Plan, store: Store, say: Say | None = None) -> None:
        self.plan, self.store, self.say = plan, store, say
        self.judged = store.keys() & plan.nodes.keys()  # what is stored or has failed
        self.level = 0
        level: dict[str, int] = {}
        for key, node in plan.nodes.items():
            before = max((level[i] + (plan.nodes[i].kind == "align") for i in node.inputs.values()), default=0)
            level[key] = before
        self.levels: list[dict[str, Asked]] = [{} for _ in range(1 + max(level.values(), default=0))]
        for key, asked in _alignments(plan):
            if key not in self.judged:
                self.levels[level[key]].setdefault(key, asked)

    @property
    def held(self) -> set[str]:
        return {key for asked in self.levels[self.level :] for key in asked}

    def advance(self, schedule: Schedule, settled: Iterable[str] = ()) -> None:
        """Let every level go whose audits are there. Raises GateError where one of them is anything but a go."""
        self.judged.update(settled)
        while self.level < len(self.levels):
            asked = {k: a for k, a in self.levels[self.level].items() if k not in schedule.blocked}
            if any(a.audit is not None and a.audit not in self.judged for a in asked.values()):
                return
            self._judge(list(asked.values()), schedule)
            schedule.release(self.levels[self.level])
            self.level += 1

    def _judge(self, asked: list[Asked], schedule: Schedule) -> None:
        self.store.refresh()
        wanted = {a.audit for a in asked if a.audit is not None and a.audit not in schedule.failures}
        found = self.store.get_many(wanted, arrays=False)
        against = []
        for a in asked:
            if a.unaudited is not None:
                against.append((a.name, audits.REFUSED, a.unaudited))
            elif a.audit in found:
                meta = found[a.audit].meta
                if meta["audit_verdict"] != "go":
                    against.append((a.name, meta["audit_verdict"], meta["audit_reason"]))
            else:
                against.append((a.name, "not audited", schedule.failures.get(a.audit or "", "its audit is missing")))
        if against:
            self._tell(against)
            raise GateError(_refusal(against, len(asked)))
        if asked and self.say is not None:
            self.say(f"the audit says go for all {len(asked)} alignments that are trained now")

    def _tell(self, against: list[Against]) -> None:
        if self.say is None:
            return
        for name, call, why in against[:MOST]:
            self.say(f"{name}: {call} ({why})")
        if len(against) > MOST:
            self.say(f"and {len(against) - MOST} more")


def _alignments(plan: Plan) -> Iterable[tuple[str, Asked]]:
    for cell in plan.cells:
        beta = "" if cell.beta is None else f" at beta {cell.beta:g}"
        varied = "".join(f", {key} {value}" for key, value in cell.varied.items())
        name = f"{cell.recipe}, {cell.algorithm}{beta}, seed {cell.seed}{varied}"
        for stage in cell.stages:
            if stage.kind == "align":
                yield stage.model, Asked(name, stage.audit, stage.unaudited)


def _refusal(against: list[Against], asked: int) -> str:
    counts = Counter(call for _, call, _ in against)
    told = ", ".join(f"{n} {call}" for call, n in counts.items())
    name, call, why = against[0]
    return (
        f"{len(against)} of {asked} alignments are not a go ({told}), so nothing more was trained; the first is "
        f"{name}: {call} ({why}). Change the study, or run it without --require-go; what was computed is kept."
    )
