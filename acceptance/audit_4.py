"""Power and speed of the audit: what docs/audit.md and docs/benchmarks.md say is what the benchmarks wrote, and a slice
of each is run again.

    python acceptance/audit_4.py [PAIRS.jsonl] [--full]      # or ALIGNFIRST_PAIRS=PAIRS.jsonl

Prints each target beside its figure, from `auditing/evidence.json` (mixtures), `benchmarks/audit_grammar.json` (text).
Then two grammar teachers are trained with few updates and audited, to see that the benchmark runs, and, where PAIRS are
given, few rows are scored against peers. Ten minutes; `--full` runs all of `audit_power.py`, an hour on two cores.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from alignfirst.auditing.constants import ON_POLICY
from common import ROOT, RUNS, conclude, fresh, shell

TARGETS = {"reinforce": (0.92, 0.97), "rloo": (0.92, 0.97), "ppo": (0.92, 0.97), "dpo-online": (0.92, 0.97)} | {
    "grpo": (0.88, 0.94),
    "dpo-offline": (0.90, 0.94),
}
OTHERS = {"mae": ("<=", 0.08), "decided right": (">=", 0.95), "go right": (">=", 0.95), "undecided": ("<=", 0.40)}
ORDER, TEXT = 0.85, {"spearman audit": 0.8, "auc audit": 0.9}
SPEED = ("lm-eval 0.4.13", "TRL 1.16, reference pass")
failures: list[str] = []


def judged(what: str, value: float, sign: str, target: float) -> str:
    met = value >= target if sign == ">=" else value <= target
    if not met:
        failures.append(f"{what}: {value:.3f}, target {sign} {target}")
    return f"{value:.3f} ({sign} {target:g}){'' if met else ' MISSED'}"


def three(interval: list[float]) -> str:
    return f"{interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}]"


def in_page(page: str, what: str, words: str) -> None:
    if words not in page:
        failures.append(f"{what}: the page does not say {words}")


def mixtures(evidence: dict[str, Any], page: str) -> None:
    for algorithm, (rank, area) in TARGETS.items():
        scores = evidence["scores"][algorithm]
        goals = {"spearman audit": (">=", rank), "auc audit": (">=", area)} | OTHERS
        told = [f"{name} {judged(f'{algorithm} {name}', scores[name][0], *goal)}" for name, goal in goals.items()]
        print(f"{algorithm:12s} {', '.join(told)}")
        for name in goals:
            in_page(page, f"{algorithm} {name}", three(scores[name]))
    for algorithm in ON_POLICY:
        order = evidence["order"][algorithm]
        told = judged(f"order, {algorithm}", order["right"][0], ">=", ORDER)
        print(f"order {algorithm:12s} right {told}, majority {order['majority']:.3f}")


def text(found: dict[str, Any], page: str) -> None:
    scores = found["ess at least 10"]["both"]
    told = [f"{name} {judged(f'text {name}', scores[name][0], '>=', goal)}" for name, goal in TEXT.items()]
    print(f"text, {found['references']} references, {scores['cells']} cells: {', '.join(told)}")
    for which in ("ess at least 10", "all"):
        for algorithm, each in found[which].items():
            in_page(page, f"{algorithm}, {which}", three(each["spearman audit"]))
    if found["references"] < 30:
        failures.append(f"{found['references']} grammar references")
    for when, each in found["the rule for text"].items():
        print(f"  {when}: decided right {three(each['decided right'])}, error {three(each['mae'])}")
        in_page(page, when, three(each["decided right"]))


def speed(page: str) -> None:
    """Bars as the page tells them: the benchmark itself exits 1 where one is missed."""
    rows = [line for line in page.splitlines() if line.count("|") >= 8 and any(peer in line for peer in SPEED)]
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        peer, time, bar, memory, most = (cells[i] for i in (2, 4, 5, 7, 8))
        ratios = [float(cell.strip("*x")) for cell in (time, memory)]
        bars = [float(cell.strip(">= x")) for cell in (bar, most)]
        print(f"scoring, {peer}: {ratios[0]}x (>= {bars[0]}x), memory {ratios[1]}x smaller (>= {bars[1]}x)")
        failures.extend(f"{peer}: {r} < {b}" for r, b in zip(ratios, bars, strict=True) if r < b)
    if len(rows) != 4:
        failures.append(f"docs/benchmarks.md shows {len(rows)} comparisons of scoring, not 4")


audit_page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
mixtures(json.loads((ROOT / "src" / "alignfirst" / "auditing" / "evidence.json").read_text()), audit_page)
text(json.loads((ROOT / "benchmarks" / "audit_grammar.json").read_text()), audit_page)
speed((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))

folder = fresh(RUNS / "audit-evidence")
folder.mkdir(parents=True)
environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
run = f"{sys.executable} benchmarks/"
slice_at = folder / "grammar.json"
if shell(f"{run}audit_grammar.py --quick --out {slice_at} > {folder}/grammar.txt", ROOT, **environment):
    failures.append("benchmarks/audit_grammar.py --quick failed")
else:
    again = json.loads(slice_at.read_text())["all"]["reinforce"]
    print(
        f"again, 2 teachers undertrained on purpose: reinforce, AUC {three(again['auc audit'])}, {again['cells']} cells"
    )
    if not again["auc audit"][0] > 0.5:
        failures.append("the slice ranks no better than chance")
if "--full" in sys.argv and shell(f"{run}audit_power.py --out {folder}/power.json", ROOT, **environment):
    failures.append("benchmarks/audit_power.py failed")
given = next((a for a in sys.argv[1:] if not a.startswith("--")), os.environ.get("ALIGNFIRST_PAIRS"))
if given is None or not Path(given).is_file():
    print("scoring was not run again: no file of pairs was named")
elif shell(f"{run}score_vs_peers.py --data {given} --quick", ROOT, **environment):
    failures.append("benchmarks/score_vs_peers.py --quick failed")
conclude(failures)
