"""Audits for the tests of their page: made by the audit itself from rows of log-probabilities, dressed with texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignfirst.auditing.findings import Audit, audit
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target, inputs_of
from alignfirst.auditing.logprob_table import read

PLANS = (
    Plan("ppo", 0.1, 40_000), Plan("ppo", 0.3, 40_000), Plan("reinforce", 0.1, 150_000),
    Plan("dpo-offline", 0.1, 8_000), Plan("ipo", 0.1, 8_000),
)  # fmt: skip
WORDS = ("the", "river", "takes", "a", "wide", "turn", "at", "an", "old", "stone", "bridge", "where", "boats", "wait")


def samples(random: np.random.Generator, n: int = 1_500) -> list[dict[str, Any]]:
    """Draws of a reference that gives the target in 4 % of draws, and of a teacher that gives it in 40 %."""
    rows = []
    for source, share in (("reference", 0.04), ("teacher", 0.4)):
        for hit in random.random(n) < share:
            q, p = (0.04, 0.4) if hit else (0.96, 0.6)
            noise = float(random.normal(-20, 2))
            reward = float(random.normal(0.9, 0.04) if hit else random.normal(0.1, 0.04))
            row: dict[str, Any] = {"kind": "sample", "source": source, "reward": reward, "in_target": bool(hit)}
            row |= {"prompt_id": "sampled", "pair_id": "none"}
            rows.append(row | {"logp_reference": noise + np.log(q), "logp_teacher": noise + np.log(p)})
    return rows


def pairs(random: np.random.Generator, n: int, texts: Sequence[str] = (), teacher: bool = True) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        for kind in ("chosen", "rejected"):
            tokens = int(random.integers(12, 60))
            text = texts[i % len(texts)] if texts else " ".join(random.choice(WORDS, tokens))
            logp = float(-random.gamma(2.0, 0.6 if kind == "chosen" else 0.7) * tokens)
            row: dict[str, Any] = {"kind": kind, "pair_id": i, "prompt_id": f"p{i}", "tokens": tokens, "text": text}
            row |= {"logp_reference": logp, "rarest_logp": logp / 4, "rarest_at": int(random.integers(tokens))}
            if teacher:
                row["logp_teacher"] = min(logp + float(random.normal(0.15, 0.25)) * tokens, -0.1)
            rows.append(row)
    return rows


def write(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    plans: Sequence[Plan] = PLANS,
    *,
    title: str = "student",
    target: str | None = None,
    about: dict[str, Any] | None = None,
    tokens: Sequence[str] | None = None,
    prompt: str = "What turns before the bridge?",
    change: Any = None,
) -> Path:
    """Audit the rows and write what the command writes: audit.json in `folder`; return the file of the rows.

    `tokens` are given to every worst row as the tokens of its answer, with the prompt; `change` edits the JSON before
    it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = inputs_of(read(path), None if target is None else Target.parse(target))
    about = {"log_probs": str(path), "log_probs_sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | (about or {})
    found: Audit = audit(inputs, plans, title=title, about=about)
    plain = found.plain()
    if tokens is not None:
        _with_tokens(plain, tokens, prompt)
    if change is not None:
        change(plain)
    (folder / "audit.json").write_text(json.dumps(plain, allow_nan=False))
    return path


def _with_tokens(plain: dict[str, Any], tokens: Sequence[str], prompt: str) -> None:
    for n, row in enumerate(plain["pairs"]["worst"]):
        logp = [-0.2 - 4.0 * ((i * 7 + n) % 5 == 0) - 0.01 * i for i in range(len(tokens))]
        teacher = [-0.1] * len(tokens)
        order = sorted(range(len(tokens)), key=lambda i: logp[i])[:8]
        row["prompt"] = prompt
        row["tokens"] = {"text": list(tokens), "logp_reference": logp, "logp_teacher": teacher}
        row["costliest_tokens"] = [
            {"at": i, "text": tokens[i], "logp_reference": logp[i], "logp_teacher": -0.1} for i in order
        ]
