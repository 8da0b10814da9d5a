"""The page of a study: what its template says without a script, and which scripts and styles it takes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignfirst.report.offline_page import Layout, assemble
from alignfirst.report.page_budget import within_budget
from alignfirst.report.page_sections import sections_of, theory_known
from alignfirst.report.payload import SHOWN_FAILURES, failures, payload, timings_by_kind
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences import words
from alignfirst.report.sentences.order_verdict import VERDICTS, OrderVerdict, TrapWindow
from alignfirst.report.text_metrics import parts
from alignfirst.report.user_models_page import own
from alignfirst.stats.audited import VERDICTS as CALLS

LAYOUT = Layout(
    "report.html.j2",
    styles=("page", "figure", "verdict", "filmstrip", "text", "screens"),
    scripts=("shell", "study.js", "figures", "text", "start_study.js"),
)


def page(run: RunFiles, verdict: OrderVerdict) -> str:
    """The whole report. Raises StoreError where even the thinnest form does not fit the size of a page."""
    context = _context(run, verdict) | {"sections": sections_of(run)}
    return assemble(LAYOUT, context, lambda most_bytes: within_budget(payload(run), most_bytes))


def _context(run: RunFiles, verdict: OrderVerdict) -> dict[str, Any]:
    lost = failures(run)
    context = {
        "manifest": dict(run.manifest),
        "counts": dict(run.counts),
        "config": run.config,
        "verdict": dataclasses.asdict(verdict),
        "verdicts": list(VERDICTS),
        "calls": list(CALLS),
        "strips": [strip(w) for w in verdict.windows],
        "failures": lost[:SHOWN_FAILURES],
        "failures_left_out": max(0, len(lost) - SHOWN_FAILURES),
        "failure_columns": [*run.varied, "recipe", "algorithm", "beta", "seed", "stage", "status", "error"],
        "timings": timings_by_kind(run.timings),
        "seeds": _seeds(run),
        "kind": run.exhibits.get("kind"),
        "parts": sorted(parts(run)),
        "theory": theory_known(run),
        "theory_window": any(w.known for w in verdict.windows),
        "digests": run.manifest["digests"],
        "traps": _traps(run),
        "own": dataclasses.asdict(own(run)),
    }
    result: dict[str, Any] = words.shown(context)
    return result


def strip(window: TrapWindow) -> dict[str, Any]:
    """Where the marks of one algorithm's window stand, in per cent of an axis with the study's betas evenly spaced."""
    betas = [b for b, _ in window.shares]
    band = None
    if window.low is not None and window.high is not None and window.low < window.high:
        left, right = _position(window.low, betas), _position(window.high, betas)
        if right > left:  # else the whole window lies beyond the study's betas
            band = {"left": round(left, 2), "width": round(max(right - left, 0.5), 2)}
    dots = [
        {"at": round(_position(b, betas), 2), "share": share, "percent": None if share is None else round(100 * share)}
        for b, share in window.shares
    ]
    return {"band": band, "dots": dots}


def _position(beta: float, grid: Sequence[float]) -> float:
    """Piecewise logarithmic between neighbouring betas; half a place is kept free at both ends."""
    if len(grid) == 1:
        return 50.0 if beta == grid[0] else 100.0 * (beta > grid[0])
    logs = [math.log(b) for b in grid]
    x = math.log(max(beta, 1e-12))
    i = max(0, min(len(grid) - 2, sum(x >= v for v in logs) - 1))
    place = i + (x - logs[i]) / (logs[i + 1] - logs[i])
    return 100 * (max(-0.5, min(len(grid) - 0.5, place)) + 0.5) / len(grid)


def _seeds(run: RunFiles) -> str:
    seeds = list(run.manifest.get("seeds") or [])
    if seeds == list(range(len(seeds))) and len(seeds) > 2:
        return f"0 to {len(seeds) - 1}"
    return words.listed(str(s) for s in seeds)


def _traps(run: RunFiles) -> list[Mapping[str, Any]]:
    """Trapped seeds by recipe and kind, over every algorithm and beta; none where no optimum says what a trap is."""
    if not any(r.get("trap") or r.get("exact_target_mass") is not None for r in run.rows):
        return []
    counts: dict[str, Counter[str]] = {}
    aligned: Counter[str] = Counter()
    for row in run.rows:
        if row["stage"] == "align" and row["status"] == "ok":
            aligned[row["recipe"]] += 1
            counts.setdefault(row["recipe"], Counter())
            if row.get("trap"):
                counts[row["recipe"]][row["trap"]] += 1
    kinds = ("anchor", "sampling", "exploration")
    return [
        {"recipe": r, "aligned": aligned[r], "kinds": [c[k] for k in kinds], "free": aligned[r] - sum(c.values())}
        for r, c in counts.items()
    ]
