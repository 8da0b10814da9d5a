"""A world of tiny exact arithmetic that fails, sleeps or dies on demand.

What it does on demand comes from the environment, never from settings: keys, and so what is in the store, are the same
with and without the trouble.

TOY_FAIL = JSON list of {"kind", "seed"?, "how", ...}: nodes that match do that, HOW being one of
    failure, raise, nan, die, stage, exit, leave, interrupt and fork
TOY_KILL = a file: the next node unlinks it, if it is there, and kills its process
TOY_SLEEP = seconds a node sleeps
TOY_HOLD = a file: models wait while it exists, except sft
TOY_LOG = a file: every node adds a line with its kind, key and number of threads; it also prints
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignfirst.costs.price import Price
from alignfirst.errors import StageFailure
from alignfirst.nodes import Artefact, Failure, Json, Load, Node, NodeKind, Outcome
from alignfirst.study.config.study_config import Section, StudyConfig
from alignfirst.world import World

NAME = "toy_world:WORLD"


def _interrupt() -> None:
    raise KeyboardInterrupt


# What code of a user may do to the process that it works in
USER_EXITS = {"exit": lambda: sys.exit(0), "leave": lambda: os._exit(0), "interrupt": _interrupt, "fork": os.fork}


class ToyAlign(Section):
    reference: Literal["start", "sft"] = "start"
    updates: int = 8
    gain: float = 0.5


class ToyPreferences(Section):
    source: Literal["start", "sft"] = "start"


class ToyConfig(StudyConfig):
    world: str = NAME
    align: ToyAlign = ToyAlign()
    preferences: ToyPreferences = ToyPreferences()


class ToyWorld(World):
    """Models are four numbers; stages are sums, products and seeded noise."""

    name = "toy"
    unit = "numbers"
    operations_a_second = 64
    versions: Mapping[NodeKind, int] = {"sft": 1, "distil": 1, "align": 1, "measure": 1, "predict": 1}

    def settings(self, kind: NodeKind, config: Any, **context: Json) -> dict[str, Json]:
        if kind == "align":
            context["gain"] = config.align.gain
            context["updates"] *= config.align.updates
        return dict(context)

    def group(self, node: Node) -> Hashable:
        return node.kind, node.settings.get("algorithm")

    def batch_size(self, node: Node) -> int:
        return {"sft": 4, "measure": 16}.get(node.kind, 8)

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        assert len({self.group(node) for node in nodes}) == 1
        return [self._trouble(node) or self._compute(node, load) for node in nodes]

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        return {"kind": "toy", "models": {key: a.arrays["x"].tolist() for key, a in models.items()}}

    def open(self, artefact: Artefact, load: Load) -> Any:
        return artefact.arrays["x"]

    def _trouble(self, node: Node) -> Outcome | None:
        if log := os.environ.get("TOY_LOG"):
            print("a world may print")
            with open(log, "a") as f:
                f.write(f"{node.kind} {node.key} {os.environ.get('OMP_NUM_THREADS')}\n")
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        while node.kind in ("align", "distil") and os.path.exists(os.environ.get("TOY_HOLD", "")):
            time.sleep(0.01)
        if kill := os.environ.get("TOY_KILL"):
            try:
                Path(kill).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            except FileNotFoundError:
                pass
        for rule in json.loads(os.environ.get("TOY_FAIL", "[]")):
            wanted = {name: value for name, value in rule.items() if name not in ("kind", "how")}
            if node.kind == rule["kind"] and all(node.settings.get(k) == v for k, v in wanted.items()):
                return self._fail(rule["how"])
        return None

    def _fail(self, how: str) -> Outcome | None:
        if how == "failure":
            return Failure("asked to fail")
        if how == "nan":
            return Artefact({}, {"reward": float("nan")})
        if how in USER_EXITS:
            USER_EXITS[how]()
            return None
        if how == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "stage":
            raise StageFailure("asked to stop")
        raise ZeroDivisionError("asked to raise")

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        return Price(sampled=4, sampling=8.0, stored=32)

    def _compute(self, node: Node, load: Load) -> Outcome:
        s = node.settings
        x = {role: load(key).arrays["x"] for role, key in node.inputs.items()}
        if node.kind == "measure":
            return Artefact({}, _measured(x, s["beta"]))
        if node.kind == "predict":
            return Artefact({}, {"stages": [_predicted(x["sft"], i) for i in range(1 + len(s["stages"]))]})
        noise = np.random.default_rng([s["seed"], s.get("occurrence", 0)]).standard_normal(4)
        meta = {"updates": 1, "samples": 4, "flops": 8.0}
        if node.kind == "sft":
            return Artefact({"x": noise}, meta)
        if node.kind == "distil":
            return Artefact({"x": x["teacher"] * 0.5 + noise * s["rehearsed"]}, meta)
        step = s["gain"] * s["updates"] / (s["beta"] or 1.0)
        moved = x["initial"] + 0.1 * x["reference"] + x.get("pairs", x["initial"]) + step + noise
        return Artefact({"x": moved}, meta | {"target_draws": int(s["seed"])})


def _predicted(sft: np.ndarray, stage: int) -> dict[str, Json]:
    return {"predicted_reward": float(sft.mean()) + stage, "predicted_target_mass": 0.5 / (1 + stage)}


def _measured(x: Mapping[str, np.ndarray], beta: float | None) -> dict[str, Json]:
    model = x["model"]
    found: dict[str, Json] = {
        "reward": float(model.mean()),
        "reward_sd": float(model.std()),
        "target_mass": float(1 / (1 + np.exp(-model[0]))),
        "target_precision": float(-abs(model[1])),
        "target_recall": float(-abs(model[2])),
        "overall_precision": float(-abs(model[3])),
        "overall_recall": float(-abs(model[0])),
        "coverage": {"10": 0.5, "100": 0.75, "1000": 1.0},
        "kl_to_sft": float(((model - x["sft"]) ** 2).mean()),
    }
    if "reference" in x:
        found |= {
            "kl_to_reference": float(((model - x["reference"]) ** 2).mean()),
            "exact_reward": 1.0,
            "exact_target_mass": 0.9,
            "beta_c": None if beta is None else 2 * beta,
            "kl_to_optimum": None,
            "trap": None,
        }
    return found


WORLD = ToyWorld()
