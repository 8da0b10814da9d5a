"""What a run would do and what it would find, before it does anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignfirst.errors import InputError
from alignfirst.store import Store
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.estimates import (
    CostEstimate,
    NodeSeconds,
    StageEstimate,
    estimate_cost,
    estimate_stages,
)
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.study.output.run_dir import RunDir
from alignfirst.study.plan.planner import plan_study
from alignfirst.world import Preflight, World


@dataclass(frozen=True)
class DryRun:
    """What a run would do. `seconds` is wall time on so many workers, `stages` has seconds on one core. `preflight` is
    what the world found out about the study's own files, where it has such."""

    cells: int
    rows: int
    stages: tuple[StageEstimate, ...]
    workers: int
    cost: CostEstimate  # of what is left to do, by formula
    preflight: Preflight | None = None

    @property
    def nodes(self) -> int:
        return sum(stage.total for stage in self.stages)

    @property
    def cached(self) -> int:
        return sum(stage.cached for stage in self.stages)

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages) / self.workers


def preflight(
    config: StudyConfig,
    world: World,
    strict: bool = False,
    announce: Callable[[Preflight], None] | None = None,
    out: Path = Path(),
) -> Preflight | None:
    """What a world finds out about a study's own files, and about the room that a run in `out` has; None where a study
    has no such files. Raises InputError."""
    found = world.preflight(config, {name: RECIPES[name] for name in config.recipes}, out)
    if found is None:
        return None
    if announce is not None:
        announce(found)
    if strict and found.warnings:
        more = f" and {len(found.warnings) - 1} more" if len(found.warnings) > 1 else ""
        raise InputError(
            "a strict run must have no warnings", found.warnings[0] + more, "Repair that, or do without --strict."
        )
    return found


def dry_run(config: StudyConfig, out: Path | str, workers: int | None = None, strict: bool = False) -> DryRun:
    """What `run` would do, touching nothing. Raises InputError for the directory of another study."""
    world = load_world(config.world)
    plan, run_dir = plan_study(config, world), RunDir(out)
    run_dir.check(config)
    found = preflight(config, world, strict, out=run_dir.path)
    stored = set(Store(run_dir.store).keys())
    stages = estimate_stages(plan.nodes, stored, NodeSeconds(world, plan.nodes, run_dir.timings()))
    rows = sum(len(cell.stages) for cell in plan.cells)
    cost = estimate_cost(world, config, plan.nodes, [key for key in plan.nodes if key not in stored])
    return DryRun(len(plan.cells), rows, tuple(stages), max(1, ExecutionOptions(workers).tasks_at_once), cost, found)
