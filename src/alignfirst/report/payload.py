"""The payload of a report: everything its figures draw, as compact JSON. Nothing is estimated here, only arranged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignfirst.records import COLUMNS, Row
from alignfirst.report.audit.audited_points import points
from alignfirst.report.compact import Codes, columns
from alignfirst.report.exhibit_shapes import exhibit
from alignfirst.report.palette import CALL_LOOKS, look_of
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import of_study, rounded, shown
from alignfirst.report.text_metrics import Measure, column_of, measures
from alignfirst.stats import METRICS
from alignfirst.stats.audited import VERDICTS
from alignfirst.study.config.recipe import RECIPES

SHOWN_FAILURES = 200
EXTRAS = (
    "exact_reward", "exact_kl", "exact_target_mass", "predicted_reward", "predicted_target_mass", "beta_c",
    "kl_to_reference", "kl_to_sft", "kl_to_optimum", "target_draws", "samples", "flops",
)  # fmt: skip
CellKey = tuple[int, int, int, int, int]  # variant, recipe, algorithm, beta, stage_index


@dataclass
class Axes:
    """The axes of a study and their values, each known by its number in the payload."""

    varied: list[str]
    recipes: Codes
    algorithms: Codes
    betas: Codes
    variants: Codes = field(default_factory=Codes)

    def of(self, row: Mapping[str, Any]) -> tuple[int, int, int]:
        """variant, algorithm, beta of a row"""
        variant = self.variants.add([row[k] for k in self.varied])
        return variant, self.algorithms.add(row["algorithm"]), self.betas.add(row["beta"])

    def key(self, row: Mapping[str, Any]) -> CellKey:
        variant, algorithm, beta = self.of(row)
        return variant, self.recipes.add(row["recipe"]), algorithm, beta, row["stage_index"]


def axes(run: RunFiles) -> Axes:
    """Recipes in the order of `RECIPES`, algorithms as the study names them, betas ascending."""
    present = dict.fromkeys(r["recipe"] for r in run.rows)
    known = [r for r in RECIPES.builtin if r in present]
    betas = sorted({r["beta"] for r in run.rows if r["beta"] is not None})
    algorithms = dict.fromkeys(r["algorithm"] for r in run.rows if r["algorithm"] is not None)
    found = Axes(run.varied, Codes([*known, *(r for r in present if r not in known)]), Codes(algorithms), Codes(betas))
    for row in run.rows:
        found.variants.add([row[k] for k in found.varied])
    return found


def payload(run: RunFiles) -> dict[str, Any]:
    """Everything that the page's script reads; strings are made visible, numbers have four digits."""
    at = axes(run)
    pool = Codes()
    by_cell: dict[CellKey, list[Row]] = defaultdict(list)
    for row in run.rows:
        by_cell[at.key(row)].append(row)
    exhibits, models = exhibit(run)
    of_text = measures(run)
    data = {
        "study": _study(run, at),
        "metrics": [{"id": c.name, "label": c.label, "unit": c.unit} for c in COLUMNS if c.label],
        "recipes": _recipes(run, at),
        "algorithms": at.algorithms.values,
        "betas": at.betas.values,
        "cells": _cells(run, at, pool, by_cell, models) | _text_cells(run, at, pool, by_cell, of_text),
        "pairs": _pairs(run, at),
        "claims": _claims(run, at),
        "audited": points(run, at),
        "exhibits": exhibits,
        "timings": timings_by_kind(run.timings),
        "words": of_study(),
        "calls": [{"name": call, "look": CALL_LOOKS[call].plain()} for call in VERDICTS if call in CALL_LOOKS],
        "pool": pool.values,
        "left_out": [],
    }
    if of_text:
        data["text_measures"] = [m.shown() for m in of_text]
    result: dict[str, Any] = shown(data)
    return result


def _study(run: RunFiles, at: Axes) -> dict[str, Any]:
    return {
        "name": run.manifest.get("name"),
        "preset": run.manifest.get("preset"),
        "world": run.manifest.get("world"),
        "status": run.manifest.get("status"),
        "seeds": run.manifest.get("seeds"),
        "varied": [n.label for n in run.names],
        "variants": [[n.text(v) for n, v in zip(run.names, variant, strict=True)] for variant in at.variants.values],
    }


def _recipes(run: RunFiles, at: Axes) -> list[dict[str, Any]]:
    stages: dict[str, dict[int, str]] = defaultdict(dict)
    for row in run.rows:
        stages[row["recipe"]].setdefault(row["stage_index"], row["stage"])
    return [
        {"name": r, "stages": [stages[r][i] for i in sorted(stages[r])], "look": look_of(r, place).plain()}
        for place, r in enumerate(at.recipes.values)
    ]


def _cells(
    run: RunFiles, at: Axes, pool: Codes, by_cell: Mapping[CellKey, list[Row]], models: Mapping[str, int]
) -> dict[str, Any]:
    """Key columns and extras by cell, statistics by metric; `seeds`, `values` and `models` are numbers of the pool."""
    keys, extras = [], []
    by_metric: dict[str, list[dict[str, Any]]] = {m: [] for m in METRICS}
    for cell in run.statistics.get("cells", []):
        key = at.key(cell)
        rows = by_cell[key]
        traps = Counter(r["trap"] for r in rows if r.get("trap"))
        exhibited = {str(r["seed"]): models[r["model"]] for r in rows if r["model"] in models}
        keys.append(
            dict(zip(("v", "r", "a", "b", "i"), key, strict=True))
            | {"final": int(cell["final"]), "n": cell["n"], "failed": cell["failed"]}
            | {"seeds": pool.add(cell["seeds"]), "lost": pool.add(cell["failed_seeds"] or None)}
            | {"traps": pool.add(dict(sorted(traps.items()))), "models": pool.add(exhibited or None)}
        )
        extras.append({n: cell[n] for n in EXTRAS})
        for m in METRICS:
            s = cell[m]
            values = pool.add([rounded(v) for v in s["values"]])
            by_metric[m].append({k: s[k] for k in ("mean", "iqm", "sd", "low", "high")} | {"values": values})
    return columns(keys) | columns(extras) | {m: columns(by_metric[m]) for m in METRICS}


def _text_cells(
    run: RunFiles, at: Axes, pool: Codes, by_cell: Mapping[CellKey, list[Row]], of_text: Sequence[Measure]
) -> dict[str, Any]:
    """Columns that only text has, by measure, in the order of `_cells`."""
    cells = run.statistics.get("cells", []) if of_text else []
    rows, seeds = [by_cell[at.key(c)] for c in cells], [c["seeds"] for c in cells]
    return {m.id: column_of(m, rows, seeds, pool) for m in of_text}


def _pairs(run: RunFiles, at: Axes) -> dict[str, Any]:
    notes, rows = Codes(), []
    place = {m: i for i, m in enumerate(METRICS)}
    both = [{"recipe": None, **p} for p in run.statistics.get("pairs", [])]
    for p in both + list(run.statistics.get("recipes", [])):
        if p["recipe"] == "align-distil":  # the same numbers as in `pairs`
            continue
        v, a, b = at.of(p)
        r = at.recipes.add(p["recipe"] or "align-distil")
        row = {"v": v, "r": r, "a": a, "b": b, "m": place[p["metric"]]}
        rows.append(row | {n: p[n] for n in ("n", "mean", "low", "high", "share_won")} | {"note": notes.add(p["note"])})
    return columns(rows) | {"notes": notes.values}


def _claims(run: RunFiles, at: Axes) -> dict[str, Any]:
    ids, notes, rows = Codes(), Codes(), []
    statements: dict[str, dict[str, Any]] = {}
    for c in run.statistics.get("claims", []):
        v, a, b = at.of(c)
        statements[c["claim"]] = {k: c.get(k) for k in ("claim", "statement", "metric", "scale", "direction")}
        row = {"c": ids.add(c["claim"]), "v": v, "a": a, "b": b}
        row |= {n: c[n] for n in ("n", "estimate", "low", "high", "p", "p_holm", "verdict")}
        rows.append(row | {"note": notes.add(c["note"])})
    return columns(rows) | {"claims": [statements[i] for i in ids.values], "notes": notes.values}


def timings_by_kind(timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and memory summed by kind of work."""
    kinds: dict[str, dict[str, Any]] = {}
    for t in timings:
        k = kinds.setdefault(
            str(t.get("kind")),
            {"kind": t.get("kind"), "tasks": 0, "nodes": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_rss_mb": 0.0},
        )
        k["tasks"] += 1
        for name in ("nodes", "seconds", "cpu_seconds"):
            k[name] += t.get(name) or 0
        k["peak_rss_mb"] = max(k["peak_rss_mb"], t.get("peak_rss_mb") or 0.0)
    return [{n: rounded(v) for n, v in k.items()} for k in kinds.values()]


def failures(run: RunFiles) -> list[dict[str, Any]]:
    """Every row that has no result, with its reason; failed ones first."""
    names = (*run.varied, "recipe", "algorithm", "beta", "seed", "stage", "status", "error")
    lost = [r for r in run.rows if r["status"] != "ok"]
    lost.sort(key=lambda r: r["status"] != "failed")
    return [shown({n: r[n] for n in names}) for r in lost]
