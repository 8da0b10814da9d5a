"""Tasks of lm-eval (Gao et al.), run on a model that is already in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from alignfirst.errors import StageFailure
from alignfirst.lm import need


def evaluate(model: Any, tokenizer: Any, tasks: Sequence[str], limit: int | None = None) -> dict[str, dict[str, float]]:
    """Numbers by task and metric, such as {"arc_easy": {"acc": 0.5, "acc_stderr": 0.01}}.

    A task's data come from the hub or its cache. Raises StageFailure where a task cannot be run.
    """
    need("lm_eval")
    simple_evaluate: Any = import_module("lm_eval").simple_evaluate
    HFLM: Any = import_module("lm_eval.models.huggingface").HFLM

    try:
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        results = simple_evaluate(model=wrapped, tasks=list(tasks), limit=limit, bootstrap_iters=0, log_samples=False)
    except Exception as e:  # whatever a task, its data set or the hub trips over
        raise StageFailure(f"lm-eval could not run {', '.join(tasks)}: {type(e).__name__}: {e}") from e
    return {task: numbers(found) for task, found in sorted(results["results"].items())}


def numbers(found: dict[str, Any]) -> dict[str, float]:
    """Metrics of one task; lm-eval names them `metric,filter`."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in sorted(found.items())
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
