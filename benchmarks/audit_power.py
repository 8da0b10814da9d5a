"""How good is the audit? Constants fitted on one half of the mixture teachers, everything reported on the other half.

    python benchmarks/audit_power.py [--store DIR] [--out FILE.json] [--draws 4096] [--workers 2]

`--out src/alignfirst/auditing/evidence.json` is how the figures that reports and docs/audit.md show are made.

Trains what the store lacks (39,936 steps, four CPU-minutes), audits all references without looking at any outcome, and
compares: predictions, verdicts, intervals, baselines, the call on the order, failure cases. No alignment of the
held-out half has had a say in `alignfirst/auditing/constants.py`; the fit is done again and compared with that file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignfirst.auditing.constants import GATES, ON_POLICY, ORDER_LEVEL
from alignfirst.auditing.gated_prediction import Plan, predict
from alignfirst.auditing.order import order
from alignfirst.auditing.share_intervals import clopper_pearson
from audit_cases import Audited, Row, audit_all, held_out, rows_of, value
from audit_cells import ALGORITHMS, BETAS, Cells, Reference, collect, rollouts
from audit_failures import failures
from audit_stats import FLOORS, GO_RIGHT, LEAST_QUALITY, FitCell, Interval, auc, fit, over_teachers, share, spearman

# (Spearman, AUC) on the held-out half; the others hold for every algorithm
TARGETS = {a: (0.92, 0.97) for a in ALGORITHMS} | {"grpo": (0.88, 0.94), "dpo-offline": (0.90, 0.94)}
BINS = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.01)
MAE, DECIDED_RIGHT, GO_PRECISION, UNDECIDED, ORDER_RIGHT = 0.08, 0.95, 0.95, 0.40, 0.85


def scores(rows: list[Row]) -> dict[str, Interval]:
    """Everything about one algorithm, each with an interval over teachers."""
    teacher = np.array([r.reference.teacher for r in rows])
    reward, mass = (np.array([end[i] for end in (r.end for r in rows)]) for i in (0, 1))
    success, call = mass > 0.5, np.array([r.call for r in rows])
    columns = {
        "audit": (value(rows, "reward"), value(rows, "mass")),
        "tilt without gate": tuple(
            np.array([getattr(r.audited.pooled.tilt(r.beta), k).value for r in rows]) for k in ("reward", "mass")
        ),
        "recall": (np.array([r.recall for r in rows]),) * 2,
        "hits": (np.array([r.audited.pooled.mass.value for r in rows]),) * 2,
        "discrimination": (np.array([r.audited.discrimination for r in rows]),) * 2,
        "-beta": (np.array([-r.beta for r in rows]),) * 2,
    }
    found: dict[str, Interval] = {}
    for name, (of_reward, of_success) in columns.items():
        found[f"spearman {name}"] = over_teachers(teacher, lambda i, x=of_reward: spearman(x[i], reward[i]))
        found[f"auc {name}"] = over_teachers(teacher, lambda i, x=of_success: auc(x[i], success[i]))
    error = np.abs(value(rows, "reward") - reward)
    go, no_go = call == "go", call == "no-go"
    right = (go & success) | (no_go & ~success)
    within = {
        "reward in its interval": inside(rows, "reward", reward),
        "mass in its interval": inside(rows, "mass", mass),
    }
    shares = {"decided right": (right, go | no_go), "go right": (success, go), "no-go right": (~success, no_go)}
    shares |= {name: (hit, np.ones(len(rows), bool)) for name, hit in within.items()}
    shares["undecided"] = (~(go | no_go), np.ones(len(rows), bool))
    found["mae"] = over_teachers(teacher, lambda i: float(error[i].mean()))
    for name, (hit, of) in shares.items():
        found[name] = over_teachers(teacher, lambda i, h=hit, o=of: share(h[i], o[i]))
    return found


def calibration(rows: list[Row]) -> list[dict[str, Any]]:
    """Share of trainings that reached the target, by predicted mass, with Clopper-Pearson intervals."""
    predicted, success = value(rows, "mass"), np.array([r.end.target_mass > 0.5 for r in rows])
    bins = []
    for low, high in itertools.pairwise(BINS):
        within = (predicted >= low) & (predicted < high)
        n, won = int(within.sum()), int(success[within].sum())
        if n:
            ends = clopper_pearson(won, n)
            middle = float(predicted[within].mean())
            bins.append({"predicted": middle, "n": n, "reached": won / n, "low": ends[0], "high": ends[1]})
    return bins


def inside(rows: list[Row], name: str, truth: Any) -> Any:
    numbers = [getattr(r.prediction, name) for r in rows]
    return np.array([n.low is not None and n.low <= x <= n.high for n, x in zip(numbers, truth, strict=True)])


def order_scores(cells: Cells, audited: dict[Reference, Audited], algorithm: str, held: bool) -> dict[str, Any]:
    """How often the three-way call on the order is right, beside always saying the most frequent answer."""
    teacher, right, truths = [], [], []
    for (reference, name, beta), end in cells.align_distil.items():
        if name != algorithm or held_out(reference.teacher) != held:
            continue
        a, config = audited[reference], cells.configs[reference.teacher]
        plan = Plan(algorithm, beta, rollouts(config, algorithm))
        assert reference.student is not None
        c, n = reference.student[0], config.value("distil.samples")
        called = order(a.teacher_sample, a.teacher, predict(a.teacher, plan), predict(a.pooled, plan), c, n)
        ahead = end.reward - cells.aligned[reference, name, beta].reward
        level = abs(ahead) <= ORDER_LEVEL * (a.teacher.gap or 1.0)
        truth = "level" if level else "align-distil" if ahead > 0 else "distil-align"
        teacher.append(reference.teacher)
        right.append(called.call == truth)
        truths.append(truth)
    hit = np.array(right)
    counts = Counter(truths)
    return {
        "right": over_teachers(np.array(teacher), lambda i: float(hit[i].mean())),
        "majority": max(counts.values()) / len(truths),
        "truth": dict(counts),
    }


def refit(cells: Cells, audited: dict[Reference, Audited]) -> dict[str, Any]:
    """The constants again, on the fitting half alone."""
    chosen = {}
    for algorithm in ALGORITHMS:
        if algorithm == "rloo":  # the same estimator in expectation: the constants of reinforce
            continue
        half = [
            FitCell(audited[r].pooled, b, rollouts(cells.configs[r.teacher], a), end.reward, end.target_mass)
            for (r, a, b), end in cells.aligned.items()
            if a == algorithm and not held_out(r.teacher)
        ]
        gate, _ = fit(half, FLOORS if algorithm == "dpo-offline" else (0.0,))
        shipped = GATES[algorithm]
        for least in LEAST_QUALITY:
            GATES[algorithm] = gate = replace(gate, least_quality=least)
            went = [r.end.target_mass > 0.5 for r in rows_of(cells, audited, algorithm, False) if r.call == "go"]
            if went and np.mean(went) >= GO_RIGHT:
                break
        GATES[algorithm] = shipped
        chosen[algorithm] = {"fitted": asdict(gate), "shipped": asdict(shipped), "same": gate == shipped}
    return chosen


def report(cells: Cells, audited: dict[Reference, Audited]) -> dict[str, Any]:
    found: dict[str, Any] = {"scores": {}, "plain": {}, "order": {}, "calibration": {}}
    for algorithm in ALGORITHMS:
        rows = rows_of(cells, audited, algorithm, True)
        found["scores"][algorithm], found["calibration"][algorithm] = scores(rows), calibration(rows)
        found["plain"][algorithm] = scores(rows_of(cells, audited, algorithm, True, pooled=False))
        found["order"][algorithm] = order_scores(cells, audited, algorithm, True)
        print_algorithm(algorithm, found)
    found["misses"] = misses(found)
    print("missed targets:", *(found["misses"] or ["none"]), sep="\n  ")
    found["fit"] = refit(cells, audited)
    for algorithm, fitted in found["fit"].items():
        print(f"constants {algorithm:<12} {'as shipped' if fitted['same'] else fitted}")
    found["failures"] = failures(cells, audited)
    for name, told in found["failures"].items():
        print(f"{name}: {told}")
    return found


def print_algorithm(algorithm: str, found: dict[str, Any]) -> None:
    print(f"\n{algorithm}")
    for name, interval in found["scores"][algorithm].items():
        print(f"  {name:<28} {interval}   plain draws {found['plain'][algorithm][name]}")
    told = found["order"][algorithm]
    called = told["right"] if algorithm in ON_POLICY else "refused"
    print(f"  {'order right':<28} {called}   majority {told['majority']:.3f}  {told['truth']}")


def misses(found: dict[str, Any]) -> list[str]:
    """Targets of the plan that the held-out half does not meet, by the point estimate."""
    missed = []
    for algorithm, (rank, area) in TARGETS.items():
        s = found["scores"][algorithm]
        floors = {"spearman audit": rank, "auc audit": area, "decided right": DECIDED_RIGHT, "go right": GO_PRECISION}
        ceilings = {"mae": MAE, "undecided": UNDECIDED}
        missed += [f"{algorithm}: {k} {s[k]}, target >= {x}" for k, x in floors.items() if not s[k].value >= x]
        missed += [f"{algorithm}: {k} {s[k]}, target <= {x}" for k, x in ceilings.items() if not s[k].value <= x]
        right = found["order"][algorithm]["right"]
        if algorithm in ON_POLICY and not right.value >= ORDER_RIGHT:
            missed.append(f"{algorithm}: order right {right}, target >= {ORDER_RIGHT}")
    return missed


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--store", type=Path, help="where trainings are kept; by default they are thrown away")
    arguments.add_argument("--out", type=Path, help="write every figure as JSON")
    arguments.add_argument("--draws", type=int, default=4096)
    arguments.add_argument("--workers", type=int, default=2)
    given = arguments.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        cells = collect(given.store or Path(scratch), given.workers)
        trained = time.perf_counter()
        audited = audit_all(cells, given.draws)
        sys.stderr.write(f"trained {trained - begin:.0f} s, audited {time.perf_counter() - trained:.0f} s\n")
        print(f"{len(cells.models)} references x {len(BETAS)} betas x {len(ALGORITHMS)} algorithms")
        found = report(cells, audited)
    if given.out is not None:
        given.out.write_text(json.dumps(rounded(found), indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Plain data, four digits: more would change from machine to machine."""
    if isinstance(value, Interval):
        return [rounded(x) for x in (value.value, value.low, value.high)]
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
