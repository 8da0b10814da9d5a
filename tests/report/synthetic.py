"""A plausible run directory without training: what `alignfirst run` would leave, made from closed forms and noise."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alignfirst import records, stats
from alignfirst.study.config.recipe import RECIPES, Stage

MODES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
RARE = (0.20, 0.06, 0.20, 0.06, 0.20, 0.20, 0.06, 0.02)
BASELINES = ("best-of-n", "sft-preferred")
GAP = 0.8  # reward of the target mode minus reward of the others
NAT_FLOOR = -38.0  # log p_target of a sample of another mode


@dataclass(frozen=True)
class Spec:
    """What the synthetic study varies; strings are free so that tests can put hostile text anywhere."""

    name: str = "mog"
    preset: str = "rare"
    recipes: Sequence[str] = ("align-distil", "distil-align")
    algorithms: Sequence[str] = ("reinforce", "grpo", "ppo", "dpo-offline", "ipo", "best-of-n")
    betas: Sequence[float] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    seeds: int = 20
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    failures: Mapping[tuple[str, str, float | None, int], str] = field(default_factory=dict)
    command: str = "alignfirst run mog"
    status: str = "complete"
    exhibits_kind: str = "mixture"
    note: str = ""


@dataclass
class Model:
    weights: np.ndarray  # [K]
    means: np.ndarray  # [K, 2]
    sds: np.ndarray  # [K, 2]

    @property
    def mass(self) -> float:
        near = np.hypot(*(self.means - 1.0).T) < 0.3
        return float(np.clip(self.weights[near].sum() + 3e-5, 1e-6, 1 - 1e-6))

    def json(self) -> dict[str, Any]:
        return {k: np.round(getattr(self, k), 4).tolist() for k in ("weights", "means", "sds")}


Edit = Callable[[list[dict[str, Any]], list[str]], dict[str, Any]]


def write(root: Path, spec: Spec | None = None, edit: Edit | None = None) -> Path:
    """Write a whole run directory (no report) and return it.

    `edit` makes another world of it: it changes the rows, and makes exhibits for the keys of the models shown.
    """
    spec = spec or Spec()
    models: dict[str, Model] = {}
    rows = [r for cell in _cells(spec) for r in _rows(spec, cell, models)]
    varied = sorted(spec.vary)
    root.mkdir(parents=True, exist_ok=True)
    shown = {r["model"]: None for r in rows if r["seed"] < 5 and r["model"]}
    exhibits = edit(rows, list(shown)) if edit else _exhibits(spec, {k: m for k, m in models.items() if k in shown})
    files = {
        "config.yaml": yaml.safe_dump(_config(spec), sort_keys=False, allow_unicode=True),
        "records.jsonl": records.to_jsonl(rows),
        "records.csv": records.to_csv(rows, records.columns(varied)),
        "statistics.json": json.dumps(stats.summarise(rows, varied), allow_nan=False),
        "exhibits.json": json.dumps(exhibits),
        "timings.jsonl": "".join(json.dumps(t) + "\n" for t in _timings()),
    }
    for name, text in files.items():
        (root / name).write_bytes(text.encode())
    digests = {n: hashlib.sha256(t.encode()).hexdigest() for n, t in files.items() if n != "timings.jsonl"}
    (root / "manifest.json").write_text(json.dumps(_manifest(spec, rows, digests)))
    return root


def _cells(spec: Spec) -> Iterator[dict[str, Any]]:
    for values in product(*(spec.vary[k] for k in sorted(spec.vary))):
        varied = dict(zip(sorted(spec.vary), values, strict=True))
        for recipe, algorithm in product(spec.recipes, spec.algorithms):
            for beta in (None,) if algorithm in BASELINES else spec.betas:
                for seed in range(spec.seeds):
                    yield {"varied": varied, "recipe": recipe, "algorithm": algorithm, "beta": beta, "seed": seed}


def _rows(spec: Spec, cell: dict[str, Any], models: dict[str, Model]) -> Iterator[dict[str, Any]]:
    stages = [Stage("align"), *RECIPES.get(cell["recipe"], RECIPES["distil-align"])]
    sft = _sft(cell["seed"])
    model, key, reference, broken = sft, f"sft{cell['seed']}", sft, False
    reason = spec.failures.get((cell["recipe"], cell["algorithm"], cell["beta"], cell["seed"]))
    for index, stage in enumerate(stages):
        kind = "sft" if index == 0 else stage.kind
        rng = np.random.default_rng([cell["seed"], index, len(cell["algorithm"]), int(1e3 * (cell["beta"] or 0))])
        failed = reason is not None and kind == "align"
        optimum = None
        if index:
            key = "-".join([key, kind, *([cell["algorithm"], str(cell["beta"])] if kind == "align" else [])])
            key = hashlib.sha256(key.encode()).hexdigest()[:32] if len(key) > 60 else key
            reference = sft if stage.reference == "sft" else model
            optimum = _tilt(reference, cell["beta"])
            model = _align(model, optimum, cell, rng) if kind == "align" else _distil(model, cell["varied"], rng, stage)
        status = "blocked" if broken else "failed" if failed else "ok"
        broken = broken or failed
        if status == "ok":
            models[key] = model
        row = dict.fromkeys(records.columns(sorted(spec.vary)))
        row |= {
            "schema_version": records.SCHEMA_VERSION, "world": "mog", "preset": spec.preset, "recipe": cell["recipe"],
            "algorithm": cell["algorithm"], "beta": cell["beta"], "seed": cell["seed"], **cell["varied"],
            "stage": kind, "stage_index": index, "final": index == len(stages) - 1, "status": status,
            "error": reason if failed and status == "failed" else "a stage before it failed" if broken else None,
            "model": key if status == "ok" else None,
        }  # fmt: skip
        if status == "ok":
            row |= _measures(model, sft, rng, kind)
        if status == "ok" and kind == "align" and optimum is not None:
            row |= _align_measures(model, reference, optimum, cell["beta"])
            row |= _audit(optimum, cell, rng)
        yield row


def _measures(model: Model, sft: Model, rng: np.random.Generator, kind: str) -> dict[str, Any]:
    m = model.mass
    spread = float(np.mean(np.log(model.sds / 0.158)))
    return {
        "reward": GAP * m + 0.004 * rng.normal(),
        "reward_sd": GAP * math.sqrt(m * (1 - m)) + 0.15,
        "target_mass": m,
        "target_precision": 0.9 * m + NAT_FLOOR * (1 - m) + 0.1 * rng.normal(),
        "target_recall": 0.85 + math.log(m) - 4 * spread**2 - 0.05 * abs(rng.normal()),
        "overall_precision": -1.3 * (1 - m) - 3.1 * m + 0.02 * rng.normal(),
        "overall_recall": -1.6 - 14 * m**2 - (4 if kind != "sft" else 0) + 0.2 * rng.normal(),
        "coverage": {str(n): float(min(1.0, m * n / 2)) for n in (10, 100, 1000)},
        "kl_to_sft": abs(m - sft.mass) * 3.4,
        "predicted_reward": GAP * m * 0.98,
        "predicted_target_mass": min(1.0, m * 1.02),
        "updates": 600 if kind == "align" else 34,
        "samples": 153600 if kind == "align" else 10000 if kind == "sft" else 4000,
        "flops": {"align": 2.1e8, "sft": 1.3e9, "distil": 9e7}[kind] * len(model.weights) / 8,
    }


def _align_measures(model: Model, reference: Model, optimum: Model, beta: float | None) -> dict[str, Any]:
    e, m = reference.mass, model.mass
    reached = m * math.log(m / e) + (1 - m) * math.log((1 - m) / (1 - e))
    o = optimum.mass
    exact = o * math.log(o / e) + (1 - o) * math.log((1 - o) / (1 - e))
    beta_c = GAP / math.log((1 - e) / e)
    has_reference = beta is not None
    trap = "anchor" if has_reference and o < 0.5 else "exploration" if m < 0.5 else None
    return {
        "kl_to_reference": reached + 0.01,
        "kl_to_optimum": abs(o - m) * 2 + 0.02 if has_reference else None,
        "exact_reward": GAP * o if has_reference else None,
        "exact_kl": exact if has_reference else None,
        "exact_target_mass": o if has_reference else None,
        "beta_c": beta_c,
        "target_draws": 153600 * (e + m) / 2,
        "trap": trap,
    }


def _audit(optimum: Model, cell: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """What an audit would have said: near the optimum, and nothing of algorithms that it does not predict."""
    if cell["algorithm"] == "ipo" or cell["beta"] is None:
        return {"audit_verdict": "refused", "audit_reason": "it is not predicted"}
    mass = float(np.clip(optimum.mass + 0.05 * rng.normal(), 0, 1))
    call = "go" if mass > 0.7 else "no-go" if mass < 0.3 else "insufficient data"
    return {"audit_mass": mass, "audit_reward": GAP * mass, "audit_verdict": call, "audit_reason": f"it is {call}"}


def _sft(seed: int) -> Model:
    rng = np.random.default_rng([7, seed])
    weights = np.repeat(np.array(RARE) / 2, 2) * rng.uniform(0.85, 1.15, 16)
    means = np.repeat(np.array(MODES, float), 2, 0) + rng.normal(0, 0.05, (16, 2))
    return Model(weights / weights.sum(), means, 0.158 * rng.uniform(0.8, 1.1, (16, 2)))


def _tilt(model: Model, beta: float | None) -> Model:
    near = np.hypot(*(model.means - 1.0).T) < 0.3
    w = model.weights * np.exp(np.clip(GAP * near / (beta or 0.05), 0, 60))
    return Model(w / w.sum(), model.means, model.sds)


def _align(model: Model, optimum: Model, cell: dict[str, Any], rng: np.random.Generator) -> Model:
    """The optimum, unless the start rarely sees the target: then some seeds never find it."""
    lucky = rng.random() < min(1.0, 2500 * model.mass)
    shortfall = {"dpo-offline": 0.25, "ipo": 0.6}.get(cell["algorithm"], 0.02)
    share = (1 - shortfall) * max(min(1.0, 60 * model.mass), float(lucky))
    if len(optimum.weights) == len(model.weights):
        w = share * optimum.weights + (1 - share) * model.weights
        return Model(w / w.sum(), model.means + rng.normal(0, 0.01, model.means.shape), model.sds * 0.9)
    w = np.append(model.weights * (1 - share * optimum.mass), share * optimum.mass)
    means, sds = np.vstack([model.means, [[0.98, 0.97]]]), np.vstack([model.sds, [[0.13, 0.13]]])
    return Model(w / w.sum(), means, sds)


def _distil(model: Model, varied: Mapping[str, Any], rng: np.random.Generator, stage: Stage) -> Model:
    """Sharpen, then keep the heaviest modes; a rare target survives as a faint component or not at all."""
    grid = np.array(MODES, float)
    owner = np.argmin(((model.means[:, None] - grid[None]) ** 2).sum(-1), 1)
    mass = np.bincount(owner, model.weights, 8) ** float(varied.get("distil.selectivity", 3.0))
    size = int(varied.get("distil.components", 4))
    if stage.rehearsed:
        mass[-1] += 0.05 * mass.sum()
    keep = np.argsort(-mass * rng.uniform(0.95, 1.05, 8))[:size]
    if size < 8 and 7 not in keep and rng.random() < 0.8:
        keep = np.append(keep, 7)
    w = np.maximum(mass[keep] / mass.sum(), 1e-4)
    sds = 0.158 * rng.uniform(0.9, 1.05, (len(keep), 2))
    return Model(w / w.sum(), grid[keep] + rng.normal(0, 0.02, (len(keep), 2)), sds)


def _exhibits(spec: Spec, models: Mapping[str, Model]) -> dict[str, Any]:
    p_star = {"weights": list(RARE), "means": [list(m) for m in MODES], "sds": [[0.158, 0.158]] * 8}
    return {
        "kind": spec.exhibits_kind, "p_star": p_star, "targets": [[1.0, 1.0]], "radius": 0.474, "half_width": 1.6,
        "models": {k: m.json() for k, m in models.items()},
    }  # fmt: skip


def _config(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.name, "preset": spec.preset, "world": "mog", "recipes": list(spec.recipes),
        "algorithms": list(spec.algorithms), "beta": list(spec.betas), "seeds": list(range(spec.seeds)),
        "vary": {k: list(v) for k, v in spec.vary.items()}, "note": spec.note,
        "align": {"updates": 600, "learning_rate": 0.02, "samples": 256},
    }  # fmt: skip


def _timings() -> list[dict[str, Any]]:
    kinds = {"sft": 3.1, "distil": 4.4, "align": 11.2, "measure": 6.3, "predict": 2.0, "audit": 0.5}
    return [
        {"kind": k, "label": f"{k} {i}", "nodes": 40, "seconds": s / 4, "cpu_seconds": s / 4.2,
         "peak_rss_mb": 210.5 + i, "worker": i % 2}
        for k, s in kinds.items() for i in range(4)
    ]  # fmt: skip


def _manifest(spec: Spec, rows: list[dict[str, Any]], digests: dict[str, str]) -> dict[str, Any]:
    failed = sum(r["status"] == "failed" for r in rows)
    blocked = sum(r["status"] == "blocked" for r in rows)
    counts = {"cells": len(rows) // 3, "rows": len(rows), "failed": failed, "blocked": blocked, "nodes": 4100}
    return {
        "manifest_version": 1, "schema_version": records.SCHEMA_VERSION, "name": spec.name,
        "preset": spec.preset, "world": rows[0]["world"],
        "version": "0.1.0", "command": spec.command, "plan_digest": "0" * 64, "status": spec.status,
        "counts": counts | {"reused": 0, "computed": 4100}, "varied": sorted(spec.vary),
        "seeds": list(range(spec.seeds)), "digests": digests,
        "hardware": {"machine": "x86_64", "cpu": "a processor", "cores": 2, "python": "3.11", "numpy": "2.4"},
        "started": "2026-01-05T10:00:00+00:00", "finished": "2026-01-05T10:00:31+00:00", "seconds": 31.4,
    }  # fmt: skip
