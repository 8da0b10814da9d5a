"""`alignfirst run`: a study from its config to its report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignfirst.cli import cluster, out
from alignfirst.cli.places import MANIFEST, RUNS, StudyName
from alignfirst.errors import AlignfirstError, ExitCode, InputError

if TYPE_CHECKING:
    from alignfirst.study.config.study_config import StudyConfig
    from alignfirst.study.execution.options import ExecutionOptions
    from alignfirst.study.runner import RunResult
    from alignfirst.world import Preflight

REPORT, SUMMARY, RECORDS = "report.html", "summary.md", "records.csv"


def run(
    study: StudyName,
    set_: out.Sets = None,
    out_: Annotated[Path | None, typer.Option("--out", help="The run directory; by default runs/NAME.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; by default one an available core. 0: in this process.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    checkpoint_every: Annotated[
        float | None,
        typer.Option("--checkpoint-every", help="Seconds between checkpoints of a long stage; 30 by default."),
    ] = None,
    engine: cluster.Engines = cluster.Engine.local,
    ray_address: cluster.Address = None,
    task_cpus: cluster.Cpus = 1.0,
    task_gpus: cluster.Gpus = 0.0,
    processes: Annotated[
        int, typer.Option("--processes", help="Processes that share every training, started by accelerate.")
    ] = 1,
    shard: Annotated[
        bool, typer.Option("--shard", help="Share out gradients and AdamW's moments over --processes, as FSDP does.")
    ] = False,
    print_launch: Annotated[
        bool, typer.Option("--print-launch", help="Print the command that starts them, for your cluster.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a study whose own files give any reason for a warning.")
    ] = False,
    require_go: Annotated[
        bool, typer.Option("--require-go", help="Train no alignment before its audit says go; else exit with code 4.")
    ] = False,
    report_to: Annotated[
        list[str] | None,
        typer.Option("--report-to", help="A tracker that watches trainings of own models: wandb, ... Repeatable."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Build the report at the end.")] = True,
    json: out.Json = False,
) -> None:
    """Run a study, or finish it.

    What was computed before is not computed again.
    """
    from alignfirst.process_environment import launched
    from alignfirst.study import runner
    from alignfirst.study.config import preset_files
    from alignfirst.study.execution import launcher
    from alignfirst.study.execution.options import CHECKPOINT_SECONDS, ExecutionOptions

    nodes = cluster.on_cluster(engine, ray_address, task_cpus, task_gpus)
    config = preset_files.load(study, set_ or ())
    where = RUNS / config.name if out_ is None else out_
    seconds = CHECKPOINT_SECONDS if checkpoint_every is None else checkpoint_every
    options = ExecutionOptions(workers, strict, require_go, seconds, nodes, processes, shard, tuple(report_to or ()))
    options.write_environment(where)
    if dry_run:
        _dry_run(config, where, workers, strict, json)
        return
    if print_launch or (processes > 1 and launched() < 2):
        _launch(config, where, processes, print_launch)
        return
    result = _run(config, where, options)
    if result.status == runner.FOLLOWED:
        return
    page = _report(result) if report and result.exit_code != ExitCode.FAILED else None
    _print(config, result, page, json)
    raise typer.Exit(launcher.leave(result.exit_code))


def _launch(config: StudyConfig, where: Path, processes: int, only_print: bool) -> None:
    """Start the processes and end as they do, or print the command that would."""
    from alignfirst.signals import terminable
    from alignfirst.study.execution import launcher

    _check_launch(config, where, processes)
    arguments = [word for word in sys.argv[1:] if word != "--print-launch"]
    if only_print:
        out.line(shlex.join(launcher.command(arguments, processes)))
        return
    with terminable():
        raise typer.Exit(launcher.launch(arguments, processes))


def _check_launch(config: StudyConfig, where: Path, processes: int) -> None:
    """Refuse before any process is started. Raises InputError."""
    from alignfirst.study.execution import process_group
    from alignfirst.study.execution.worker import load_world
    from alignfirst.study.output.run_dir import RunDir
    from alignfirst.study.plan.planner import plan_study

    if processes < 2:
        raise InputError("--processes must be >= 2 to share a training", processes, "For example --processes 2.")
    world = load_world(config.world)
    process_group.check(world, plan_study(config, world).nodes)
    RunDir(where).check(config)


def _run(config: StudyConfig, where: Path, options: ExecutionOptions) -> RunResult:
    from alignfirst.cli.progress import progress
    from alignfirst.study import runner

    with progress(config.name) as advance:
        result = runner.run(config, where, options, advance, announce=_announce, say=out.note)
    for note in result.notes:
        out.note(f"note: {note}")
    lost = result.counts.get("failed", 0) + result.counts.get("blocked", 0)
    if lost and not result.nothing_to_do:
        nodes = result.counts["nodes"]
        out.complain(f"{lost} of {nodes} steps failed or had to be left out; the records' column `error` says why.")
    return result


def _report(result: RunResult) -> Path | None:
    """The page, built unless it is there and newer than the run. A report that fails does not fail the run."""
    from alignfirst import report

    page = result.out / REPORT
    if result.nothing_to_do and _newer(page, result.out / MANIFEST) and (result.out / SUMMARY).exists():
        return page
    out.note("building the report")
    try:
        return report.build(result.out)
    except AlignfirstError as e:
        out.complain(f"no report: {e}")
        return None


def _newer(path: Path, than: Path) -> bool:
    try:
        return path.stat().st_mtime_ns >= than.stat().st_mtime_ns
    except OSError:
        return False


def _print(config: StudyConfig, result: RunResult, page: Path | None, json: bool) -> None:
    from alignfirst.api import Run

    verdicts = Run(result.out).verdicts()
    paths = {"run": result.out, "records": result.out / RECORDS, "report": page}
    if json:
        value: dict[str, Any] = {
            "name": config.name,
            "status": result.status,
            "nothing_to_do": result.nothing_to_do,
            "seconds": round(result.seconds, 3),
            "counts": dict(result.counts),
            "claims": verdicts,
            "paths": {name: None if path is None else str(path) for name, path in paths.items()},
        }
        out.as_json(value)
        return
    counts = result.counts
    work = (
        "nothing to do" if result.nothing_to_do else f"{counts['computed']} steps computed, {counts['reused']} reused"
    )
    took = out.duration(result.seconds)
    out.line(f"{config.name}: {result.status}, {counts['cells']} cells, {counts['rows']} records, {work}, {took}")
    print_claims(verdicts)
    for name, path in paths.items():
        if path is not None:
            out.line(f"{name:<8}", path)


def print_claims(verdicts: list[dict[str, Any]]) -> None:
    """In how many settings each claim of the paper holds."""
    from alignfirst.api import VERDICTS

    if verdicts:
        rows = [(v["statement"], *(v[verdict] for verdict in VERDICTS)) for v in verdicts]
        out.table(("claim (settings judged)", *VERDICTS), rows, right=VERDICTS)
    else:
        out.line("No claims: they compare align-distil with distil-align, and this study does not have both.")


def _announce(found: Preflight) -> None:
    """What was found out about a study's own files, before any work."""
    for text in found.lines:
        out.note(text)
    for text in found.warnings:
        out.note(f"warning: {text}")


def _dry_run(config: StudyConfig, where: Path, workers: int | None, strict: bool, json: bool) -> None:
    from alignfirst.cli import cost_table
    from alignfirst.study.dry_run import dry_run

    plan = dry_run(config, where, workers, strict)
    if json:
        stages = [
            {
                "kind": s.kind,
                "steps": s.total,
                "stored": s.cached,
                "to_run": s.to_run,
                "core_seconds": round(s.seconds, 3),
            }
            for s in plan.stages
        ]
        value = {
            "name": config.name,
            "out": str(where),
            "cells": plan.cells,
            "rows": plan.rows,
            "workers": plan.workers,
        }
        if plan.preflight is not None:
            value |= {"preflight": dict(plan.preflight.data), "warnings": list(plan.preflight.warnings)}
        rest = {"stages": stages, "seconds": round(plan.seconds, 3), "bill": cost_table.as_data(plan.cost)}
        out.as_json(value | rest)
        return
    if plan.preflight is not None:
        for text in plan.preflight.lines:
            out.line(text)
        for text in plan.preflight.warnings:
            out.line("warning:", text)
    out.line(f"{config.name} in {where}: {plan.cells} cells, {plan.rows} records")
    header = ("stage", "steps", "stored", "to run", "core time")
    rows = [(s.kind, s.total, s.cached, s.to_run, out.duration(s.seconds)) for s in plan.stages]
    out.table(header, rows, right=header[1:])
    out.line(f"about {out.duration(plan.seconds)} on {plan.workers} worker(s), compiling and report not counted")
    cost_table.show(plan.cost)
