"""A study from config to records: plan, skip what is stored, run the rest, write what came out."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignfirst import files, version
from alignfirst.errors import ExitCode, GateError, InputError
from alignfirst.records import Row
from alignfirst.signals import die_with_parent, terminable
from alignfirst.store import Store
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.dry_run import preflight, workers_of
from alignfirst.study.execution import estimates, process_group
from alignfirst.study.execution.engine import Progress, execute
from alignfirst.study.execution.options import ExecutionOptions, available_cores
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task, load_world
from alignfirst.study.gate import Gate, Say, Watch, require_audited
from alignfirst.study.output import output_files
from alignfirst.study.output.manifest import Manifest, hardware, now
from alignfirst.study.output.run_dir import CONFIG, DIGESTED, ERRORS, EVENTS, TIMINGS, RunDir, config_text
from alignfirst.study.plan.planner import Plan, plan_study
from alignfirst.world import Preflight, World

FOLLOWED = "followed"  # status of a process that another one led
EVERYWHERE = 1 << 20  # workers: as many as a cluster has room for


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
    workers: int | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    means: ExecutionOptions | None = None,
    strict: bool = False,
    announce: Callable[[Preflight], None] | None = None,
    require_go: bool = False,
    say: Say | None = None,
) -> RunResult:
    """Run a study in a directory, or finish it there: what is stored is not computed again.

    `workers`: processes, by default one an available core, all with the same bytes; 0 computes in this process, for
    debuggers (a BLAS with several threads may then differ in the last digit). On a cluster (`means.cluster`) they are
    the tasks at once, by default as many as it has room for. `progress` is called with nodes
    settled, nodes in all, kind of the last task, and busy workers. `means` says how else it is computed. Where a study
    brings files of its own, `announce` gets what was found out about them before any work; `strict` refuses a run that
    it warns about. `require_go` trains no alignment before its audit said go. `say` gets what the audits said, also in
    worlds whose alignments wait for their audits.

    Raises InputError (directory of another study), RunLockedError (another process is at work there), StoreError (the
    disk refuses), GateError (an alignment is not a go); KeyboardInterrupt and SystemExit(143) on SIGINT and SIGTERM.
    Whatever happens, what was stored before stays, and the same call goes on from there. Cells that fail end up in the
    records with a reason.
    """
    begin = time.perf_counter()
    means = means or ExecutionOptions()
    workers = _workers(workers, means)
    world = load_world(config.world)
    plan, run_dir = plan_study(config, world), RunDir(out)
    run_dir.check(config)
    if process_group.launched() > 1:
        die_with_parent()
        process_group.check(world, plan.nodes)
        if not process_group.leads():
            process_group.follow(world, Store(run_dir.store), means.checkpoint_seconds)
            return RunResult(run_dir.path, FOLLOWED, ExitCode.OK, {}, time.perf_counter() - begin)
    with process_group.leading():
        manifest = _finished(run_dir, plan)
        if manifest is not None:
            counts = manifest["counts"]
            seconds = time.perf_counter() - begin
            return RunResult(run_dir.path, "complete", ExitCode.OK, counts, seconds, nothing_to_do=True)
        if require_go:
            require_audited(world)
        found = preflight(config, world, strict, announce, run_dir.path)
        run_dir.make()
        run_dir.check(config)  # `new/../old` is only seen to be `old` once `new` is there
        with terminable(), run_dir.lock():
            run_dir.check(config)  # another process may have made it its own in between
            this = _Run(config, world, plan, run_dir, begin, command or _command(), means, found)
            this.gate = _gate(world, plan, this.store, say, require_go)
            return this.go(workers, progress)


def _gate(world: World, plan: Plan, store: Store, say: Say | None, require_go: bool) -> Gate | Watch | None:
    """What holds alignments back: a go of all, their own audit, or nothing."""
    if require_go:
        return Gate(plan, store, say)
    return Watch(plan, store, say) if world.audit_first else None


def _workers(workers: int | None, means: ExecutionOptions) -> int:
    if means.cluster is None:
        return workers_of(workers, available_cores())
    if workers is not None and workers < 1:
        raise InputError("workers on a cluster must be >= 1", workers, "Leave them out to use all of the cluster.")
    return workers_of(workers, EVERYWHERE)


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


class _Run:
    """One call of `run` that has work to do and holds the lock."""

    def __init__(
        self,
        config: StudyConfig,
        world: World,
        plan: Plan,
        run_dir: RunDir,
        begin: float,
        command: str,
        means: ExecutionOptions,
        preflight: Preflight | None = None,
    ) -> None:
        self.config, self.world, self.plan, self.run_dir = config, world, plan, run_dir
        self.begin, self.command, self.started, self.means = begin, command, now(), means
        self.store = Store(run_dir.store)
        self.earlier = run_dir.manifest() or {}
        self.preflight = preflight
        self.gate: Gate | Watch | None = None

    def go(self, workers: int, progress: Progress | None) -> RunResult:
        self._announce()
        self._event(
            "start",
            version=version.__version__,
            command=self.command,
            workers=None if workers == EVERYWHERE else workers,
        )
        files.sweep(self.store.root)
        notes = tuple(self.store.heal())
        if self.preflight is not None:
            self.world.prepare(self.config, self.store)
        stored = self.store.keys() & self.plan.nodes.keys()
        self.store.forget_partial(stored)
        schedule = self._schedule(stored)
        try:
            self._execute(schedule, workers, len(stored), progress)
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
        self.run_dir.append(EVENTS, json.dumps({"time": now(), "event": event, **what}, allow_nan=False) + "\n")

    def _schedule(self, stored: set[str]) -> Schedule:
        stated = None if self.preflight is None else self.preflight.seconds
        costs = estimates.Costs(self.world, self.run_dir.timings(), self.plan.nodes, stated)
        held = () if self.gate is None else self.gate.held
        return Schedule(self.plan.nodes, self.plan.nodes.keys() - stored, self.world, costs.seconds, held)

    def _execute(self, schedule: Schedule, workers: int, stored: int, progress: Progress | None) -> None:
        total = len(self.plan.nodes)

        def on_report(task: Task, report: Report, worker: int, busy: int) -> None:
            self.run_dir.append(TIMINGS, _timing(task, report, worker))
            settled = stored + schedule.settled
            self._event("task", **_timed(task, report, worker), settled=settled, of=total, busy=busy)
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
            execute(schedule, self.world, self.config.world, self.store, workers, on_report, self.means, on_death)
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


def _timing(task: Task, report: Report, worker: int) -> str:
    return json.dumps(_timed(task, report, worker)) + "\n"


def _timed(task: Task, report: Report, worker: int) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "label": task.label,
        "nodes": len(task.nodes),
        "seconds": report.seconds,
        "cpu_seconds": report.cpu_seconds,
        "peak_rss_mb": report.peak_rss_mb,
        "worker": worker,
    }
