"""`alignfirst audit`: whether a reference can be aligned, before alignment is paid for."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignfirst import files
from alignfirst.cli import cluster, out
from alignfirst.cli.audit_files import DIGEST, sha256_of
from alignfirst.errors import ExitCode, InputError

if TYPE_CHECKING:
    from alignfirst.auditing.findings import Audit
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.auditing.inputs import Target
    from alignfirst.study.execution.options import Cluster

BETA = 0.1
RESULT, SUMMARY = "audit.json", "audit.txt"


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
        Path | None, typer.Option("--pairs", metavar="FILE", help="Preference pairs in one of TRL's formats.")
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
    _check(reference, log_probs)
    if log_probs is not None:
        _check_alone({"pairs": pairs, "prompts": prompts, "reward": reward, "teacher": teacher, "samples": samples})
        _check_whole(rows)
    nodes = cluster.on_cluster(engine, ray_address, task_cpus, task_gpus)
    rule = None if target is None else _target(target)
    if log_probs is not None:
        _not_there(nodes, "--log-probs")
        result = _log_probs(log_probs, target_file, rule, _plans(algorithm, beta, rollouts, labels))
    else:
        assert reference is not None
        result = _models(reference, locals(), rule)
    _deliver(result, out_, json)
    raise typer.Exit(exit_code(result, gate, require_go))


def _check(reference: str | None, log_probs: Path | None) -> None:
    if (reference is None) == (log_probs is None):
        given = "both" if reference is not None else "neither"
        raise InputError("audit takes either --reference or --log-probs", given, "Name one: a model, or a file.")


def _check_alone(options: dict[str, Any]) -> None:
    """What would be computed or read elsewhere is in the file already."""
    for name, value in options.items():
        if value is not None:
            cure = "Its rows hold pairs, samples, rewards and what the teacher says."
            raise InputError("--log-probs stands alone", f"--{name}", cure)


def _check_whole(rows: int | None) -> None:
    """A row here is one response: the first so many would part the answers of a pair, and draws of the two models."""
    if rows is not None:
        cure = "Write a file of the rows you want, both answers of a pair and all samples of a prompt together."
        raise InputError("--rows is for --pairs and --prompts", f"--rows {rows} with --log-probs", cure)


def _target(text: str) -> Target:
    from alignfirst.auditing.inputs import Target

    return Target.parse(text)


def _plans(
    algorithms: Sequence[str] | None,
    betas: Sequence[float] | None,
    rollouts: int | None,
    labels: str,
    text: bool = False,
) -> list[Plan]:
    from alignfirst.auditing.constants import GATES
    from alignfirst.auditing.gated_prediction import Plan

    return [Plan(a, b, rollouts, labels, text=text) for a in algorithms or GATES for b in betas or (BETA,)]


def _log_probs(path: Path, target_file: Path | None, target: Target | None, plans: Sequence[Plan]) -> Audit:
    import numpy as np

    from alignfirst.auditing.findings import audit as run
    from alignfirst.auditing.inputs import inputs_of
    from alignfirst.auditing.logprob_table import read

    table = read(path) if target_file is None else read(path, target_file)
    if np.isfinite(table.tokens).any():  # lengths in tokens: the responses are text
        plans = [replace(plan, text=True) for plan in plans]
    about = {"log_probs": str(path), DIGEST: sha256_of(path), "rows": len(table)}
    return run(inputs_of(table, target), plans, title=str(path), about=about)


def _not_there(nodes: Cluster | None, what: str) -> None:
    if nodes is not None:
        raise InputError("a cluster scores rows of language models", what, "Leave --engine ray out: it is quick here.")


def _models(reference: str, given: dict[str, Any], target: Target | None) -> Audit:
    from alignfirst.cli.audit_store import Address, audit_store

    if Address.parse(reference) is None:
        from alignfirst.cli.audit_models import audit_models

        plans = _plans(given["algorithm"], given["beta"], given["rollouts"], given["labels"], text=True)
        return audit_models(given, plans, target)
    _not_there(given["nodes"], "a model of a study")
    for name in ("pairs", "prompts", "reward", "target", "target_file", "rows"):
        if given[name] is not None:
            cure = "Leave it out: the study has its own reward and target."
            raise InputError("a stored model is audited by its own study", f"--{name.replace('_', '-')}", cure)
    return audit_store(
        reference,
        given["teacher"],
        given["algorithm"] or (),
        given["beta"] or (),
        given["rollouts"],
        given["samples"],
    )


def exit_code(result: Audit, gate: bool, require_go: bool) -> ExitCode:
    """4 where a gate that was asked for does not open."""
    calls = result.calls
    if require_go and (not calls or set(calls) != {"go"}):
        return ExitCode.GATE
    return ExitCode.GATE if gate and "no-go" in calls else ExitCode.OK


def _by_key(plain: dict[str, Any]) -> str:
    """JSON with one key a line: as fast as without line breaks, where indenting 100,000 rows takes seconds."""
    parts = (f"{jsonlib.dumps(key)}: {jsonlib.dumps(value, allow_nan=False)}" for key, value in plain.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _deliver(result: Audit, folder: Path | None, json: bool) -> None:
    from alignfirst.auditing.sentences import lines
    from alignfirst.report import build_audit

    page, plain, text = None, result.plain(), lines(result)
    if folder is not None:
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(folder / RESULT, [_by_key(plain).encode()])
        files.write_atomic(folder / SUMMARY, ["".join(f"{out.clean(line)}\n" for line in text).encode()])
        page = build_audit(folder)
    if json:
        out.as_json(plain)
        return
    for line in text:
        out.line(line)
    if folder is not None:
        out.line("written:", folder / RESULT)
        out.line("page:", page)
