"""`alignfirst audit`: whether a reference can be aligned, before alignment is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignfirst.cli import cluster, out
from alignfirst.errors import ExitCode, InputError

if TYPE_CHECKING:
    from alignfirst.auditing.findings import Audit
    from alignfirst.study.execution.options import Cluster


def audit(
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="A model's directory or id, or RUN:recipe/stage of a study."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="MODEL", help="A model of higher recall, to find rare hits with.")
    ] = None,
    log_probs: Annotated[
        Path | None, typer.Option("--log-probs", metavar="FILE", help="Log-probabilities computed elsewhere; no torch.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", metavar="FILE", help="Preference pairs; see docs/own-models.md.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="Prompts to sample from: JSON lines with `prompt`.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="MODULE:FUNCTION", help="f(prompts, responses) -> numbers.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="RULE", help="What counts as a hit, such as 'R >= 0.5'.")
    ] = None,
    target_file: Annotated[
        Path | None,
        typer.Option("--target-file", metavar="FILE", help="Examples of what is wanted, to read a rule off."),
    ] = None,
    beta: Annotated[list[float] | None, typer.Option("--beta", help="Strength of the KL term. Repeatable.")] = None,
    algorithm: Annotated[list[str] | None, typer.Option("--algorithm", help="Repeatable; by default all.")] = None,
    labels: Annotated[
        str, typer.Option("--labels", help="How preference labels are made: bradley-terry or hard.")
    ] = "bradley-terry",
    rollouts: Annotated[
        int | None, typer.Option("--rollouts", help="Responses that training will draw in all.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Responses to draw: of a mixture in all, of a language model a prompt."),
    ] = None,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", help="Longest response to draw from a language model.")
    ] = 256,
    rows: Annotated[int | None, typer.Option("--rows", help="Use the first so many rows of the file.")] = None,
    shape: out.Shape = "auto",
    column: out.Columns = None,
    workers: Annotated[
        int, typer.Option("--workers", help="Processes that ask models, each with its own copy; 0: this process.")
    ] = 0,
    engine: cluster.Engines = cluster.Engine.local,
    ray_address: cluster.Address = None,
    task_cpus: cluster.Cpus = 1.0,
    task_gpus: cluster.Gpus = 0.0,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with code 4 if any plan is no-go.")] = False,
    require_go: Annotated[bool, typer.Option("--require-go", help="Exit with code 4 unless every plan is go.")] = False,
    out_: Annotated[Path | None, typer.Option("--out", help="Folder for audit.json, audit.txt and audit.html.")] = None,
    json: out.Json = False,
) -> None:
    """Say whether a reference can be aligned.

    Predicts, without training, where each algorithm at each beta will end: go, no-go or insufficient data.
    """
    planned = (algorithm or (), beta or (), rollouts, labels)
    nodes = cluster.on_cluster(engine, ray_address, task_cpus, task_gpus)
    result = _audited(
        reference, log_probs, workers, nodes, teacher=teacher, pairs=pairs, prompts=prompts, reward=reward,
        target=target, target_file=target_file, planned=planned, out=out_, samples=samples, new_tokens=new_tokens,
        rows=rows, shape=shape, columns=column or (),
    )  # fmt: skip
    _print(result, out_, json)
    raise typer.Exit(exit_code(result, gate, require_go))


def _audited(
    reference: str | None, log_probs: Path | None, workers: int, nodes: Cluster | None, planned: Any, **asked: Any
) -> Audit:
    from alignfirst.api import audit as run
    from alignfirst.cli.progress import progress
    from alignfirst.study.audit.request import Plans
    from alignfirst.study.execution.options import ExecutionOptions

    given = _given(reference, log_probs)
    options = ExecutionOptions(workers=workers if nodes is None else workers or None, cluster=nodes)
    with progress("audit") as advance:
        return run(given, plans=Plans(*planned), **asked, progress=advance, say=out.note, options=options)


def _given(reference: str | None, log_probs: Path | None) -> str | Path:
    """What is audited. Raises InputError where it is named twice or not at all, or is no file."""
    if (reference is None) == (log_probs is None):
        given = "both" if reference is not None else "neither"
        raise InputError("audit takes either --reference or --log-probs", given, "Name one: a model, or a file.")
    if log_probs is not None and not log_probs.is_file():
        cure = "JSON lines or Parquet, see docs/audit.md."
        raise InputError("log-probabilities must be in a file", str(log_probs), cure)
    return log_probs or reference or ""


def exit_code(result: Audit, gate: bool, require_go: bool) -> ExitCode:
    """4 where a gate that was asked for does not open."""
    calls = result.calls
    if require_go and (not calls or set(calls) != {"go"}):
        return ExitCode.GATE
    return ExitCode.GATE if gate and "no-go" in calls else ExitCode.OK


def _print(result: Audit, folder: Path | None, json: bool) -> None:
    from alignfirst.auditing.sentences import lines
    from alignfirst.report import AUDIT, AUDIT_PAGE

    if json:
        out.as_json(result.plain())
        return
    for line in lines(result):
        out.line(line)
    if folder is not None:
        out.line("written:", folder / AUDIT)
        out.line("page:", folder / AUDIT_PAGE)
