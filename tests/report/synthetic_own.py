"""A synthetic run made into one of own models: what the world hf leaves, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOT_THEIRS = (
    "coverage", "posterior", "by_prompt", "target_precision", "target_recall", "exact_reward", "exact_kl",
    "exact_target_mass", "kl_to_optimum", "beta_c", "trap", "predicted_reward", "predicted_target_mass",
)  # fmt: skip
WORST = [{"line": 7}, {"line": 3}]


@dataclass(frozen=True)
class OwnSpec:
    """`gap`: how much more implicit reward the end of align-distil has; `width`: half an interval."""

    gap: float = 0.2
    width: float = 0.05
    rewarded: bool = False
    texts: Sequence[str] = ("One answer.", "Another one.")
    prompts: Sequence[str] = ("Why?", "How?")
    reason: str = "a verdict needs a reward"

    def __call__(self, rows: list[dict[str, Any]], shown: list[str]) -> dict[str, Any]:
        for row in rows:
            self._row(row)
        texts = [{"text": t, "prompt": i % len(self.prompts), "reward": None} for i, t in enumerate(self.texts)]
        curves = {"update": [1.0, 2.0], "loss": [0.7, 0.6]}
        aligned = {row["model"] for row in rows if row["stage"] == "align"}
        number = {"value": 0.5, "low": 0.25, "high": 0.75, "why": None}
        found = {"rows": 60, "discrimination": number, "worst": WORST}
        return {
            "kind": "text",
            "prompts": list(self.prompts),
            "models": {key: {"texts": texts, "curves": curves, "layers": 2, "lora": None} for key in shown},
            "audits": {key: found for key in aligned},
        }

    def _row(self, row: dict[str, Any]) -> None:
        row["world"] = "hf"
        row |= dict.fromkeys(NOT_THEIRS)
        row |= {"target_mass": None, "audit_reward": None, "audit_mass": None, "audit_verdict": None}
        row |= {"audit_reason": None, "reward_sd": None}
        if not self.rewarded:
            row["reward"] = None
        if row["stage"] == "align":
            row |= {"audit_verdict": "insufficient data", "audit_reason": self.reason}
        if row["status"] != "ok":
            return
        first = row["recipe"] == "align-distil"
        accuracy = None if row["stage"] == "sft" else 0.6 + self.gap * (first and row["final"])
        logp = -20.0 - row["stage_index"]
        row |= {"held_out_accuracy": accuracy, "held_out_margin": None if accuracy is None else 0.5}
        row |= {"logp_chosen": logp, "logp_rejected": logp - 1, "held_out_pairs": 30, "measured_on": 16}
        row |= {"entropy": 30.0, "repetition": 0.1, "distinct": {"1": 0.2, "2": 0.4, "3": 0.6}, "updates": 8}
        row["flops"] = {"sft": 0.0, "align": 3e9 if first else 1e9, "distil": 1e9}[row["stage"]]
        ends = {} if accuracy is None else {"held_out_accuracy": [accuracy - self.width, accuracy + self.width]}
        row["intervals"] = ends | {"logp_chosen": [logp - 1, logp + 1]}
