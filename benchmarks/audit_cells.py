"""Trainings that the audit is judged by: mixture teachers, references of graded recall, and what became of each.

`collect(store, workers)` trains what the store does not hold yet and returns plain arrays; nothing here audits. The
design was fixed before anything was trained:

- 48 teachers. Each has its own p_star: the target's share is log-uniform in [0.005, 0.2], the other weights are those
  of preset `mog` times exp(N(0, 0.5^2)); every fourth has two targets at opposite corners, half the share each.
- 8 references a teacher: the teacher itself, and students by (selectivity, components) from generous to lossy; two
  components spread over several modes, so that their hits are diffuse.
- 4 betas, all algorithms that the audit predicts, one training each: 384 x 4 x 6 = 9,216 runs of 600 updates.
- For the call on the order: the same alignments of the teachers, distilled as each of their students was.
- For the failure cases: reinforce with a tenth of the updates, offline DPO on hard labels, and reinforce on a reward so
  wide (0.6) that neighbouring modes earn a quarter of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignfirst.nodes import Artefact, Node
from alignfirst.store import Store
from alignfirst.study.config.study_config import StudyConfig, from_mapping
from alignfirst.study.execution.engine import execute
from alignfirst.study.execution.estimates import NodeSeconds
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import load_world

TEACHERS = 48
FIRST_SEED = 10_000
STUDENTS = ((1.0, 2), (1.0, 4), (1.5, 4), (2.0, 4), (3.0, 4), (2.0, 8), (3.0, 8))
BETAS = (0.05, 0.1, 0.2, 0.3)
ALGORITHMS = ("reinforce", "rloo", "ppo", "grpo", "dpo-online", "dpo-offline")
UNDERTRAINED = 0.1  # share of the updates
OTHERS = (0.20, 0.06, 0.20, 0.06, 0.20, 0.20, 0.06)  # preset `mog` without its target
WIDE, WIDE_STUDENT = 0.6, (3.0, 4)
WORLD = "alignfirst.worlds.mog.world:WORLD"


class Reference(NamedTuple):
    """One audited model: its teacher's number, and how it was distilled (None: the teacher itself)."""

    teacher: int
    student: tuple[float, int] | None


def students_of(own: Reference) -> dict[tuple[float, int], Reference]:
    """Students of a teacher, by how they are distilled."""
    return {s: Reference(own.teacher, s) for s in STUDENTS}


class Outcome(NamedTuple):
    reward: float
    target_mass: float


@dataclass
class Cells:
    """Everything by (reference, algorithm, beta). `models` holds theta[5, K]."""

    configs: dict[int, StudyConfig]
    models: dict[Reference, Any]
    measured: dict[Reference, dict[str, Any]]  # of the references themselves
    aligned: dict[tuple[Reference, str, float], Outcome] = field(default_factory=dict)
    align_distil: dict[tuple[Reference, str, float], Outcome] = field(default_factory=dict)
    undertrained: dict[tuple[Reference, str, float], Outcome] = field(default_factory=dict)
    hard: dict[tuple[Reference, str, float], Outcome] = field(default_factory=dict)
    wide: dict[tuple[Reference, str, float], Outcome] = field(default_factory=dict)


def config_of(teacher: int, labels: str = "bradley-terry", width: float = 0.25) -> StudyConfig:
    """The study that a teacher belongs to."""
    random = np.random.default_rng(teacher)
    share = float(np.exp(random.uniform(np.log(0.005), np.log(0.2))))
    others = np.array(OTHERS) * np.exp(random.normal(0.0, 0.5, len(OTHERS)))
    two = teacher % 4 == 3
    weights = others * (1 - share) / (others[1:] if two else others).sum()
    weights = np.append(weights, share)
    if two:
        weights[0] = weights[-1] = share / 2
    targets = [[-1.0, -1.0], [1.0, 1.0]] if two else [[1.0, 1.0]]
    return from_mapping(
        {
            "name": f"teacher-{teacher}",
            "p_star": {"weights": [round(float(w), 6) for w in weights], "targets": targets},
            "preferences": {"labels": labels},
            "reward": {"width": width},
        }
    )


class Builder:
    """Nodes of the whole design, inputs before those that need them."""

    def __init__(self, teachers: Iterable[int]) -> None:
        self.world = load_world(WORLD)
        self.nodes: dict[str, Node] = {}
        self.models: dict[Reference, str] = {}
        self.asked: dict[str, dict[tuple[Reference, str, float], str]] = {
            name: {} for name in ("aligned", "align_distil", "undertrained", "hard", "wide")
        }
        self.measures: dict[Reference, str] = {}
        self.configs = {t: config_of(t) for t in teachers}
        for t, config in self.configs.items():
            self.teacher(t, config)

    def teacher(self, t: int, config: StudyConfig) -> None:
        seed, hard, wide = FIRST_SEED + t, config_of(t, "hard"), config_of(t, width=WIDE)
        sft = self.add("sft", config, {}, seed=seed)
        own = Reference(t, None)
        self.models[own] = sft
        students = {r: s for s, r in students_of(own).items()}
        for reference, student in students.items():
            self.models[reference] = self.distil(config, sft, seed, student)
        for reference in (own, *students):
            model = self.models[reference]
            self.measures[reference] = self.measure(config, model, sft)
            for beta in BETAS:
                for algorithm in ALGORITHMS:
                    end = self.align(config, model, seed, algorithm, beta)
                    self.asked["aligned"][reference, algorithm, beta] = self.measure(config, end, sft)
                short = self.align(config, model, seed, "reinforce", beta, UNDERTRAINED)
                self.asked["undertrained"][reference, "reinforce", beta] = self.measure(config, short, sft)
                argmax = self.align(hard, model, seed, "dpo-offline", beta)
                self.asked["hard"][reference, "dpo-offline", beta] = self.measure(config, argmax, sft)
        trap = students_of(own)[WIDE_STUDENT]
        for beta in BETAS:
            end = self.align(wide, self.models[trap], seed, "reinforce", beta)
            self.asked["wide"][trap, "reinforce", beta] = self.measure(wide, end, sft)
            for algorithm in ALGORITHMS:
                first = self.align(config, sft, seed, algorithm, beta)
                for reference, student in students.items():
                    end = self.distil(config, first, seed, student)
                    self.asked["align_distil"][reference, algorithm, beta] = self.measure(config, end, sft)

    def distil(self, config: StudyConfig, teacher: str, seed: int, student: tuple[float, int]) -> str:
        made = config.with_values({"distil.selectivity": student[0], "distil.components": student[1]})
        return self.add("distil", made, {"teacher": teacher}, seed=seed, rehearsed=False, occurrence=0)

    def align(
        self, config: StudyConfig, start: str, seed: int, algorithm: str, beta: float, updates: float = 1.0
    ) -> str:
        inputs = {"initial": start, "reference": start} | ({"pairs": start} if algorithm == "dpo-offline" else {})
        context = {"seed": seed, "algorithm": algorithm, "beta": beta, "updates": updates, "occurrence": 0}
        return self.add("align", config, inputs, **context)

    def measure(self, config: StudyConfig, model: str, sft: str) -> str:
        return self.add("measure", config, {"model": model, "sft": sft}, algorithm=None, beta=None)

    def add(self, kind: Any, config: StudyConfig, inputs: dict[str, str], **context: Any) -> str:
        node = Node(kind, self.world.settings(kind, config, **context), inputs, self.world.versions[kind])
        self.nodes.setdefault(node.key, node)
        return node.key


def collect(store_at: Path, workers: int = 2, teachers: int = TEACHERS) -> Cells:
    """Train what is missing in the store; the rest is read from it."""
    build = Builder(range(teachers))
    store = Store(store_at)
    missing = [key for key in build.nodes if not store.has(key)]
    if missing:
        schedule = Schedule(build.nodes, missing, build.world, NodeSeconds(build.world, build.nodes))
        execute(schedule, build.world, WORLD, store, ExecutionOptions(workers), lambda *_: progress(schedule))
        if schedule.failures:
            raise RuntimeError(f"{len(schedule.failures)} failed: {next(iter(schedule.failures.values()))}")
    found = store.get_many([*build.models.values(), *build.measures.values()])
    cells = Cells(
        build.configs,
        {r: found[key].arrays["theta"] for r, key in build.models.items()},
        {r: dict(found[key].meta) for r, key in build.measures.items()},
    )
    for name, asked in build.asked.items():
        ends = store.get_many(set(asked.values()))
        getattr(cells, name).update({at: outcome(ends[key]) for at, key in asked.items()})
    return cells


def outcome(measured: Artefact) -> Outcome:
    return Outcome(measured.meta["reward"], measured.meta["target_mass"])


def progress(schedule: Schedule) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{schedule.settled} of {len(schedule.pending)} steps")


def rollouts(config: StudyConfig, algorithm: str, updates: float = 1.0) -> int:
    """Draws that a training sees: what a person would pass as --rollouts."""
    if algorithm == "dpo-offline":
        return 2 * int(config.value("preferences.pairs"))
    batches = round(config.value("align.updates") * updates)
    if algorithm == "ppo":
        batches = -(-batches // config.value("align.ppo_epochs"))
    return int(batches * config.value("align.samples"))
