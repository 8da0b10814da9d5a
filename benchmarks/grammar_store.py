"""The grammar study with its store against each recipe run from its start without it, in CPU-seconds.

    python benchmarks/grammar_store.py [--run DIR] [--out FILE.json]

*Measured*: preset `grammar-quick` with one seed, once as a study, then each of its cells (recipe, algorithm, beta) as a
study of its own in an empty directory. *Computed*, for a finished run of a larger preset (`--run`): median CPU-seconds
of its nodes, by kind and algorithm, times how often each would be needed if every cell were run from its start.

Measured in one process after a warm-up, so that neither side pays for starting and importing, though a run for every
cell would pay that every time. Two CPU-minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from alignfirst.study.config import preset_files
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import label, load_world
from alignfirst.study.output.run_dir import RunDir
from alignfirst.study.plan.planner import Cell, Plan, plan_study
from alignfirst.study.runner import run

PRESET, BAR = "grammar-quick", 1.8
WARM_UP = {"sft.steps": 2, "distil.steps": 2, "align.updates": 2}


def cpu_seconds(config: StudyConfig, out: Path) -> tuple[float, int]:
    """Run a study in this process into an empty directory: CPU-seconds, and nodes computed."""
    begin = time.process_time()
    result = run(config, out, ExecutionOptions(workers=0))
    if result.status != "complete":
        raise RuntimeError(f"{config.name}: {result.status}, see {out}")
    return time.process_time() - begin, sum(line["nodes"] for line in RunDir(out).timings())


def measured() -> dict[str, Any]:
    config = preset_files.load(PRESET).with_values({"seeds": 1})
    plan = plan_study(config, load_world(config.world))
    with tempfile.TemporaryDirectory() as folder:
        cpu_seconds(config.with_values(WARM_UP), Path(folder) / "warm-up")
        together, nodes = cpu_seconds(config, Path(folder) / "study")
        apart, repeated = 0.0, 0
        for n, cell in enumerate(plan.cells):
            alone = {"recipes": [cell.recipe], "algorithms": [cell.algorithm], "beta": [cell.beta]}
            seconds, some = cpu_seconds(config.with_values(alone), Path(folder) / str(n))
            apart, repeated = apart + seconds, repeated + some
    return told(f"{PRESET}, 1 seed", len(plan.cells), together, nodes, apart, repeated)


def computed(finished: Path) -> dict[str, Any]:
    """From a finished run: what its cells would have cost one by one."""
    run_dir = RunDir(finished)
    config = preset_files.load(str(finished / "config.yaml"))
    plan = plan_study(config, load_world(config.world))
    price = prices(plan, run_dir.timings())
    needed = [needs(plan, cell) for cell in plan.cells]
    apart = sum(price[key] for keys in needed for key in keys)
    together, repeated = sum(price[key] for key in plan.nodes), sum(map(len, needed))
    return told(f"{config.name}, {len(plan.seeds)} seeds", len(plan.cells), together, len(plan.nodes), apart, repeated)


def prices(plan: Plan, timings: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Median CPU-seconds of every node's kind and algorithm."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in timings:
        if line["nodes"]:
            seen[line["kind"], line["label"]].append(line["cpu_seconds"] / line["nodes"])
    unknown = {(node.kind, label(node)) for node in plan.nodes.values()} - seen.keys()
    if unknown:
        sys.exit(f"the run was made by another version: it has no timings of {sorted(unknown)}; run it again")
    return {key: median(seen[node.kind, label(node)]) for key, node in plan.nodes.items()}


def needs(plan: Plan, cell: Cell) -> set[str]:
    """Every node that a cell's rows are made of, and all that goes into those."""
    found: set[str] = set()
    queue = list(cell.keys)
    while queue:
        key = queue.pop()
        if key not in found:
            found.add(key)
            queue += plan.nodes[key].inputs.values()
    return found


def told(what: str, cells: int, together: float, nodes: int, apart: float, repeated: int) -> dict[str, Any]:
    ratio = apart / together
    print(f"{what}: {cells} cells", flush=True)
    print(f"  one study with its store    {together:8.1f} CPU-s, {nodes:5d} nodes")
    print(f"  every cell from its start   {apart:8.1f} CPU-s, {repeated:5d} nodes")
    print(f"  ratio {ratio:.2f}x (bar {BAR}x)", flush=True)
    return {"what": what, "cells": cells, "together": together, "apart": apart, "ratio": ratio}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run, for the computed figure")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    found = [measured(), *([] if given.run is None else [computed(given.run)])]
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(each["ratio"] >= BAR for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
