"""A synthetic run made into one of text: what a world of language models would leave, without training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOWERS, TOOLS = ("rose", "fern", "moss", "lily"), ("anvil", "bolt", "gear", "saw", "rope")
BEHAVIOURS = ("1", "2", "target")
PROMPTS = ("<1>", "<2>", "<3>")
WEIGHTS = ((0.6, 0.3, 0.1), (0.5, 0.45, 0.05), (0.4, 0.59, 0.01))
THEORY = ("exact_reward", "exact_target_mass", "exact_kl", "kl_to_optimum", "beta_c", "trap", "predicted_reward",
          "predicted_target_mass")  # fmt: skip
CURVES = ("reward", "kl", "entropy", "target_share", "loss", "grad_norm")


@dataclass(frozen=True)
class TextSpec:
    """What the world knows. `exact` false: a real language model, with neither behaviours nor words of the target."""

    exact: bool = True
    prompts: Sequence[str] = PROMPTS
    texts: Sequence[str] | None = None  # of every model; else words by its target mass
    count: int = 8
    curve: Sequence[str] = CURVES  # names of the curves of align stages
    behaviours: Sequence[str] = BEHAVIOURS
    points: int = 36

    def __call__(self, rows: list[dict[str, Any]], shown: list[str]) -> dict[str, Any]:
        """Rows changed in place; content of exhibits.json returned."""
        for row in rows:
            _textual(self, row)
        by_model = {row["model"]: row for row in rows}
        models = {key: _model(self, by_model[key]) for key in shown}
        if not self.exact:
            return {"kind": "text", "prompts": list(self.prompts), "models": models}
        return {
            "kind": "text", "prompts": list(self.prompts), "behaviours": list(self.behaviours),
            "weights": [list(w) for w in WEIGHTS[: len(self.prompts)]], "target_words": list(FLOWERS),
            "target_behaviour": 2, "truth": _samples(self, 0.2, 0), "models": models,
        }  # fmt: skip


def _textual(spec: TextSpec, row: dict[str, Any]) -> None:
    row["world"] = "grammar"
    row |= dict.fromkeys(THEORY)
    if row["status"] != "ok":
        return
    m = row["target_mass"]
    row["reward"] = m - 1
    row |= {"entropy": 30 - 5 * m, "entropy_per_token": (30 - 5 * m) / 16, "repetition": 0.1 + 0.1 * m}
    row |= {"distinct": {"1": 0.01, "2": 0.2 - 0.1 * m, "3": 0.5 - 0.2 * m}, "measured_on": 512}
    if not spec.exact:
        row |= {"target_mass": None, "coverage": None}
        return
    row["posterior"] = dict(zip(spec.behaviours, (0.7 * (1 - m), 0.3 * (1 - m), m), strict=True))
    if len(spec.prompts) > 1:
        row["by_prompt"] = {
            str(p + 1): {"reward": m - 1 - p / 10, "target_mass": m / (p + 1), "target_recall": -25 - p + math.log(m),
                         "overall_recall": -26.0 - p}
            for p in range(len(spec.prompts))
        }  # fmt: skip


def _model(spec: TextSpec, row: dict[str, Any]) -> dict[str, Any]:
    mass = row["target_mass"] if spec.exact else 0.5
    names = spec.curve if row["stage"] == "align" else ("loss", "grad_norm")
    steps = range(1, spec.points + 1)
    curves = {name: [round(mass * math.sin(i + len(name)) + i / 10, 4) for i in steps] for name in names}
    return {"texts": _samples(spec, mass, row["seed"]), "curves": {"update": [2.0 * i for i in steps], **curves}}


def _samples(spec: TextSpec, mass: float, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, round(1e6 * mass)])
    texts = spec.texts or [
        " ".join(rng.choice(FLOWERS if rng.random() < mass else TOOLS, 16)) for _ in range(spec.count)
    ]
    found = []
    for i, text in enumerate(texts):
        sample = {"prompt": i % len(spec.prompts), "text": text}
        if spec.exact:
            flowers = sum(w in FLOWERS for w in text.split()) > 8
            sample |= {"behaviour": 2 if flowers else i % 2, "target": 0.99 if flowers else 0.004 * i}
            sample |= {"reward": -0.05 if flowers else -1.0}
        found.append(sample)
    return found
