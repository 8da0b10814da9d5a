"""A tiny study of the chain, and all of it computed in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")


from alignfirst import worlds
from alignfirst.lm.models.build import SmolLlama
from alignfirst.lm.models.load import parameter_count
from alignfirst.nodes import Artefact, Node, Outcome
from alignfirst.study.config.study_config import StudyConfig, from_mapping
from alignfirst.study.plan.planner import Plan, plan_study

WORLD = worlds.get("chain")
WORDS = 40
STAR = SmolLlama(WORDS, 16, 2, 2, 1, 24, 64)
TINY: dict[str, Any] = {
    "world": "chain", "seeds": 1, "beta": 0.1, "algorithms": ["grpo"], "recipes": ["align-distil", "distil-align"],
    "shard": 16, "preferences": {"pairs": 16}, "measure": {"samples": 24, "scored": 8},
    "p_star": {
        "prompt": "w1 w2", "prompt_tokens": 2, "length": 6, "ends": False, "dtype": "float32", "keep": 24,
        "counted": 64, "samples": 40, "held_out": 16, "hidden": 16, "layers": 2,
        "vocabulary": WORDS,
        "parameters": parameter_count(STAR),
    },
    "target": {
        "hidden": 8, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 8, "epochs": 2, "batch": 8, "checks": 3,
        "samples": 24, "held_out": 16, "calibrated": 20, "mass": 0.1, "learning_rate": 0.01,
    },
    "sft": {
        "hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 24, "epochs": 2, "batch": 8, "checks": 3,
        "learning_rate": 0.01,
    },
    "distil": {
        "hidden": 8, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 8, "epochs": 2, "batch": 8, "checks": 3,
        "samples": 32, "held_out": 16, "learning_rate": 0.01,
    },
    "align": {"updates": 6, "samples": 8, "group_size": 4, "learning_rate": 1e-3},
}  # fmt: skip


def tiny(source: Path, **sets: Any) -> StudyConfig:
    return from_mapping(TINY).with_values({"p_star.source": str(source)} | sets)


class Played:
    """A whole study computed in this process, nodes in the order of the plan."""

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        self.plan: Plan = plan_study(config, WORLD)
        self.outcomes: dict[str, Outcome] = {}
        for key, node in self.plan.nodes.items():
            self.outcomes[key] = self.again([node])[0]

    def again(self, nodes: Sequence[Node]) -> list[Outcome]:
        return WORLD.run(nodes, self.load)

    def load(self, key: str) -> Artefact:
        found = self.outcomes[key]
        assert isinstance(found, Artefact), found
        return found

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self.plan.nodes.values() if node.kind == kind]
