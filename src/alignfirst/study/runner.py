"""A study from config to records: plan, skip what is stored, run the rest, write what came out."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignfirst import files, version
from alignfirst.errors import ExitCode, GateError, InputError
from alignfirst.process_environment import launched, leads
from alignfirst.records import Row
from alignfirst.signals import die_with_parent, terminable
from alignfirst.store import Store
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.dry_run import preflight
from alignfirst.study.execution import process_group
from alignfirst.study.execution.engine import Progress, execute
from alignfirst.study.execution.estimates import NodeSeconds
from alignfirst.study.execution.options import EVERYWHERE, ExecutionOptions
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task, load_world
from alignfirst.study.gate import Gate, Say, Watch, require_audited
from alignfirst.study.output import output_files
from alignfirst.study.output.manifest import Manifest, hardware, now
from alignfirst.study.output.run_dir import CONFIG, DIGESTED, ERRORS, EVENTS, TIMINGS, RunDir, config_text
from alignfirst.study.plan.planner import Plan, plan_study
from alignfirst.world import Preflight, World

FOLLOWED = "followed"  # status of a process that another one led


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `counts` are those of the manifest; `notes` are for a person (damage found and repaired)."""

    out: Path
    status: str  # complete or partial; FOLLOWED where another process of a team tells
    exit_code: ExitCode
    counts: Mapping[str, int]
    seconds: float
    nothing_to_do: bool = False
    notes: tuple[str, ...] = ()


def run(
    config: StudyConfig,
    out: Path | str,
    options: ExecutionOptions | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    announce: Callable[[Preflight], None] | None = None,
    say: Say | None = None,
) -> RunResult:
    """Run a study in a directory, or finish it there: what is stored is not computed again.

    `options` say how it is computed. `progress` is called with nodes settled, nodes in all, kind of the last task, and
    busy workers. `command` is what the manifest calls this run. Where a study brings files of its own, `announce` gets
    what was found out about them before any work. `say` gets what the audits said, in worlds whose alignments wait for
    their audits, and wherever a go is required.

    Raises InputError (directory of another study), RunLockedError (another process is at work there), StoreError (the
    disk refuses), GateError (an alignment is not a go); KeyboardInterrupt and SystemExit(143) on SIGINT and SIGTERM.
    Whatever happens, what was stored before stays, and the same call goes on from there. Cells that fail end up in the
    records with a reason.
    """
    begin, options = time.perf_counter(), options or ExecutionOptions()
    world = load_world(config.world)
    plan, run_dir = plan_study(config, world), RunDir(out)
    run_dir.check(config)
    _check_options(options, world)
    options.write_environment(run_dir.path)
    if launched() > 1:
        die_with_parent()
        process_group.check(world, plan.nodes)
        if not leads():
            process_group.follow(world, Store(run_dir.store), options.checkpoint_seconds)
            return RunResult(run_dir.path, FOLLOWED, ExitCode.OK, {}, time.perf_counter() - begin)
    with process_group.leading():
        manifest = _finished(run_dir, plan)
        if manifest is not None:
            counts = manifest["counts"]
            seconds = time.perf_counter() - begin
            return RunResult(run_dir.path, "complete", ExitCode.OK, counts, seconds, nothing_to_do=True)
        if options.require_go:
            require_audited(world)
        found = preflight(config, world, options.strict, announce, run_dir.path)
        run_dir.make()
        run_dir.check(config)  # `new/../old` is only seen to be `old` once `new` is there
        with terminable(), run_dir.lock():
            run_dir.check(config)  # another process may have made it its own in between
            gate = _gate(world, plan, Store(run_dir.store), say, options.require_go)
            return _Run(config, world, plan, run_dir, options, begin, command or _command(), found, gate).go(progress)


def _check_options(options: ExecutionOptions, world: World) -> None:
    """Raise InputError for options that this world, or this process, cannot follow."""
    if options.processes > 1 and launched() < 2:
        cure = "Use `alignfirst run --processes`, or what --print-launch prints."
        raise InputError("processes that share trainings are started by a launcher", options.processes, cure)
    if options.trackers:
        if not world.tracked:
            cure = "Leave --report-to out; the report has the curves."
            raise InputError("trackers watch trainings of own models", f"world {world.name}", cure)
        from alignfirst.lm.io.trackers import check

        check(options.trackers)


def _gate(world: World, plan: Plan, store: Store, say: Say | None, require_go: bool) -> Gate | Watch | None:
    """What holds alignments back: a go of all, their own audit, or nothing."""
    if require_go:
        return Gate(plan, store, say)
    return Watch(plan, store, say) if world.audit_first else None


def _command() -> str:
    program = Path(sys.argv[0]).name
    return shlex.join(["alignfirst" if program == "__main__.py" else program, *sys.argv[1:]])


def _finished(run_dir: RunDir, plan: Plan) -> dict[str, Any] | None:
    """The manifest, if everything that this plan leads to is there and as it was written. Touches nothing."""
    manifest = run_dir.manifest()
    if manifest is None or manifest.get("status") != "complete":
        return None
    same = manifest.get("plan_digest") == plan.digest and manifest.get("version") == version.__version__
    if not same or not isinstance(manifest.get("counts"), dict) or run_dir.changed(manifest):
        return None
    return manifest if plan.nodes.keys() <= Store(run_dir.store).keys() else None


@dataclass
class _Run:
    """One call of `run` that has work to do and holds the lock."""

    config: StudyConfig
    world: World
    plan: Plan
    run_dir: RunDir
    options: ExecutionOptions
    begin: float
    command: str
    preflight: Preflight | None
    gate: Gate | Watch | None

    def __post_init__(self) -> None:
        self.started, self.store = now(), Store(self.run_dir.store)
        self.earlier = self.run_dir.manifest() or {}

    def go(self, progress: Progress | None) -> RunResult:
        self._announce()
        workers = None if self.options.tasks_at_once == EVERYWHERE else self.options.tasks_at_once
        self._event("start", version=version.__version__, command=self.command, workers=workers)
        files.sweep(self.store.root)
        notes = tuple(self.store.heal())
        if self.preflight is not None:
            self.world.prepare(self.config, self.store)
        stored = self.store.keys() & self.plan.nodes.keys()
        self.store.forget_partial(stored)
        schedule = self._schedule(stored)
        try:
            self._execute(schedule, len(stored), progress)
        except (KeyboardInterrupt, SystemExit, GateError):
            self.store.refresh()  # a worker may have stored what it could not report any more
            computed = len(self.store.keys() & self.plan.nodes.keys()) - len(stored)
            counts = self._counts(schedule, [], len(stored)) | {"computed": computed}
            self._write_manifest("interrupted", counts, self._earlier_digests())
            self._event("end", status="interrupted", counts=counts)
            raise
        if not schedule.failures:
            self.store.forget_partial()
        rows = output_files.write(self.config, self.world, self.plan, schedule, self.store, self.run_dir)
        counts = self._counts(schedule, rows, len(stored))
        status = "partial" if schedule.failures else "complete"
        self._write_manifest(status, counts, {name: self.run_dir.digest(name) for name in DIGESTED})
        self._event("end", status=status, counts=counts)
        code = ExitCode.OK if status == "complete" else ExitCode.PARTLY_FAILED if counts["rows_ok"] else ExitCode.FAILED
        return RunResult(self.run_dir.path, status, code, counts, time.perf_counter() - self.begin, notes=notes)

    def _announce(self) -> None:
        """Say whose directory this is before any work. Should the run be cut short, its manifest already says so.

        Records of an earlier run that ended partly failed stay readable until new ones take their place.
        """
        text = config_text(self.config)
        if self.run_dir.digest(CONFIG) != hashlib.sha256(text.encode()).hexdigest():  # none yet, or it was damaged
            self.run_dir.write(CONFIG, text)
        self._write_manifest("interrupted", self.earlier.get("counts") or {}, self._earlier_digests(), finished=False)

    def _earlier_digests(self) -> Mapping[str, str | None]:
        return self.earlier.get("digests") or {CONFIG: self.run_dir.digest(CONFIG)}

    def _event(self, event: str, **what: Any) -> None:
        """One line for whoever watches from elsewhere."""
        self.run_dir.append_json(EVENTS, {"time": now(), "event": event, **what})

    def _schedule(self, stored: set[str]) -> Schedule:
        seconds = NodeSeconds(self.world, self.plan.nodes, self.run_dir.timings())
        held = () if self.gate is None else self.gate.held
        return Schedule(self.plan.nodes, self.plan.nodes.keys() - stored, self.world, seconds, held)

    def _execute(self, schedule: Schedule, stored: int, progress: Progress | None) -> None:
        total = len(self.plan.nodes)

        def on_report(task: Task, report: Report, worker: int, busy: int) -> None:
            timing = _timing(task, report, worker)
            self.run_dir.append_json(TIMINGS, timing)
            settled = stored + schedule.settled
            self._event("task", **timing, settled=settled, of=total, busy=busy)
            for key, reason in report.failures.items():
                self._event("failed", kind=task.kind, label=task.label, key=key, reason=reason)
            if report.traces:
                self.run_dir.append(ERRORS, "".join(f"{now()} {task.kind} {task.label}\n{t}\n" for t in report.traces))
            if progress is not None:
                progress(settled, total, task.kind, busy)
            if self.gate is not None:
                self.gate.advance(schedule, [*report.digests, *report.failures])

        def on_death() -> None:
            if self.gate is not None:
                self.gate.advance(schedule)

        if progress is not None:
            progress(stored, total, "", 0)
        self._event("plan", settled=stored, of=total)
        if self.gate is not None:
            self.gate.advance(schedule)  # audits of an earlier call
        try:
            execute(schedule, self.world, self.config.world, self.store, self.options, on_report, on_death)
        finally:
            files.sweep(self.store.root)  # what workers that were stopped had begun to write
        self.store.refresh()

    def _counts(self, schedule: Schedule, rows: list[Row], reused: int) -> dict[str, int]:
        """nodes = reused + computed + failed + blocked."""
        return {
            "cells": len(self.plan.cells),
            "rows": len(rows),
            "rows_ok": sum(row["status"] == "ok" for row in rows),
            "nodes": len(self.plan.nodes),
            "reused": reused,
            "computed": schedule.computed,
            "failed": len(schedule.failures),
            "blocked": len(schedule.blocked),
        }

    def _write_manifest(
        self, status: str, counts: Mapping[str, int], digests: Mapping[str, str | None], finished: bool = True
    ) -> None:
        self.run_dir.write_manifest(
            Manifest(
                name=self.config.name,
                preset=self.config.preset,
                world=self.plan.world,
                version=version.__version__,
                command=self.command,
                plan_digest=self.plan.digest,
                status=status,
                counts=dict(counts),
                varied=list(self.plan.varied),
                seeds=list(self.plan.seeds),
                digests=dict(digests),
                hardware=hardware(),
                started=self.started,
                finished=now() if finished else None,
                seconds=round(time.perf_counter() - self.begin, 3) if finished else None,
            )
        )


def _timing(task: Task, report: Report, worker: int) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "label": task.label,
        "nodes": len(task.nodes),
        "seconds": report.seconds,
        "cpu_seconds": report.cpu_seconds,
        "peak_rss_mb": report.peak_rss_mb,
        "worker": worker,
    }
