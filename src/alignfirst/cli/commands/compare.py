"""`alignfirst compare`: what two runs do differently, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignfirst.cli import out
from alignfirst.cli.places import RunPath, run_path
from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.stats.comparison import Comparison

SHOWN = ("reward", "target_mass")
MOST = 60  # rows on a screen


def compare(
    left: RunPath,
    right: RunPath,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric to show; repeatable. By default reward, target_mass.")
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Show every stage, not the last ones only.")] = False,
    json: out.Json = False,
) -> None:
    """Compare two runs.

    Second minus first, paired by the seeds that they share.
    """
    from alignfirst import api
    from alignfirst.stats import METRICS
    from alignfirst.stats.comparison import compare as comparing

    for name in metric or ():
        if name not in METRICS:
            raise InputError("a metric must be a known one", name, f"Choose from {', '.join(METRICS)}.")
    runs = [api.load(run_path(path)) for path in (left, right)]
    found = comparing(*runs)
    if json:
        out.as_json({"left": str(runs[0].path), "right": str(runs[1].path), **asdict(found)})
        return
    out.line(f"left: {runs[0].path}   right: {runs[1].path}   difference: right minus left")
    _print_config(found)
    _print_differences(found, metric or SHOWN, stages)


def _print_config(found: Comparison) -> None:
    if found.config:
        rows = [(key, out.compact(a), out.compact(b)) for key, (a, b) in found.config.items()]
        out.table(("config", "left", "right"), rows)
    else:
        out.line("The configs say the same.")


def _print_differences(found: Comparison, metrics: Sequence[str], stages: bool) -> None:
    asked = [d for d in found.differences if d["metric"] in metrics and (stages or d["final"])]
    if not asked:
        out.line("No cell in common.")
        return
    shown = [d for d in asked if d["difference"] != 0]
    if shown:
        _print_table(shown[:MOST], stages)
    if len(shown) > MOST:
        out.line(f"{len(shown) - MOST} more differences are not shown; --json has them all.")
    apart = sum(_apart(d) for d in shown)
    out.line(f"{len(asked)} compared, {len(asked) - len(shown)} the same to the last digit,")
    out.line(f"{apart} with an interval of the difference that leaves out 0 (not corrected for their number).")
    for count, side in ((found.only_left, "left"), (found.only_right, "right")):
        if count:
            out.line(f"{count} cells and stages are in {side} only.")


def _print_table(shown: Sequence[dict[str, Any]], stages: bool) -> None:
    from alignfirst.stats.intervals import level_words

    varied = [key for key in shown[0] if "." in key]
    names = [*varied, "recipe", "algorithm", "beta", *(["stage"] if stages else []), "metric"]
    numbers = ("left", "right", "difference", f"{level_words()} interval", "seeds")
    rows = [(*(out.compact(d[name]) for name in names), *_numbers(d)) for d in shown]
    out.table((*names, *numbers), rows, right=("beta", *numbers))


def _numbers(d: dict[str, Any]) -> tuple[str, ...]:
    interval = "-" if d["low"] is None else f"{d['low']:+.3f} to {d['high']:+.3f}"
    return out.number(d["left"]), out.number(d["right"]), f"{d['difference']:+.3f}", interval, str(d["n"])


def _apart(d: dict[str, Any]) -> bool:
    return d["low"] is not None and (d["low"] > 0 or d["high"] < 0)
