"""Alignments that wait for what the audit says of them.

`Watch`: every alignment waits for its own audit, whose verdict is said whatever it is. `Gate`, for `--require-go`:
every alignment waits until all audits that can be made before it are made, and said go.

An alignment's level is the number of alignments before it in its recipe. All audits of a level are judged together, so
that a person sees every verdict before anything of that level is trained, and nothing of it is unless all are go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignfirst.auditing.audit_nodes import PAIRS, REFUSED
from alignfirst.auditing.sentences import pair_lines
from alignfirst.errors import GateError, InputError
from alignfirst.store import Store
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.plan.planner import Plan
from alignfirst.world import World

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
    if not world.computes("audit"):
        cure = "Leave --require-go out, or audit the models with `alignfirst audit --require-go`."
        raise InputError("--require-go needs a world whose studies are audited", f"world {world.name}", cure)


class Watch:
    """Holds each alignment back until its audit is made; `advance` says the verdict and lets it go."""

    def __init__(self, plan: Plan, store: Store, say: Say | None = None) -> None:
        self.store, self.say = store, say
        self.judged = store.keys() & plan.nodes.keys()
        self.waiting: dict[str, dict[str, Asked]] = {}  # key of an audit -> alignments, by key, that wait for it
        self.unaudited: dict[str, Asked] = {}
        for key, asked in _alignments(plan):
            if key in self.judged:
                continue
            if asked.audit is None:
                self.unaudited.setdefault(key, asked)
            else:
                self.waiting.setdefault(asked.audit, {}).setdefault(key, asked)

    @property
    def held(self) -> set[str]:
        return {key for asked in self.waiting.values() for key in asked}

    def advance(self, schedule: Schedule, settled: Iterable[str] = ()) -> None:
        """Say every verdict that is new, and let the alignments go that waited for it."""
        self.judged.update(settled, schedule.failures, schedule.blocked)
        for asked in self.unaudited.values():
            self._tell(asked.name, REFUSED, asked.unaudited or "")
        self.unaudited = {}
        made = [key for key in self.waiting if key in self.judged]
        if not made:
            return
        self.store.refresh()
        found = self.store.get_many(
            [key for key in made if key not in schedule.failures.keys() | schedule.blocked.keys()], arrays=False
        )
        for key in made:
            names = [asked.name for asked in self.waiting[key].values()]
            name = names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
            if key in found:
                self._tell(name, found[key].meta["audit_verdict"], found[key].meta["audit_reason"], found[key].meta)
            elif key in schedule.failures:
                self._tell(name, "not audited", schedule.failures[key])
            schedule.release(self.waiting.pop(key))

    def _tell(self, name: str, call: str, why: str, meta: Mapping[str, Any] | None = None) -> None:
        if self.say is None:
            return
        self.say(f"audit: {name}: {call} ({why}){_expected(meta or {})}")
        _say_pairs(self.say, "", meta or {})


def _say_pairs(say: Say, title: str, meta: Mapping[str, Any]) -> None:
    lines = list(pair_lines(meta[PAIRS])) if meta.get(PAIRS) else []
    for line in [title] * bool(title and lines) + [f"  {line}" for line in lines]:
        say(line)


def _expected(meta: Mapping[str, Any]) -> str:
    told = [
        f"{name} {meta[column]:.3g}"
        for name, column in (("reward", "audit_reward"), ("target mass", "audit_mass"))
        if meta.get(column) is not None
    ]
    return f"; predicted: {', '.join(told)}" if told else ""


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
        self.judged.update(settled, schedule.failures)
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
        told: set[str] = set()
        for a in asked:
            if a.unaudited is not None:
                against.append((a.name, REFUSED, a.unaudited))
            elif a.audit in found:
                meta = found[a.audit].meta
                if self.say is not None and a.audit not in told:
                    told.add(a.audit)
                    _say_pairs(self.say, f"audit: {a.name}:", meta)
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
