"""Tasks of lm-eval (Gao et al.), run on a model that is already in memory.

A task is one that lm-eval knows by name, or a YAML file in its format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from alignfirst.errors import InputError, StageFailure
from alignfirst.extras import need
from alignfirst.files import reading

NAMED = re.compile(r"""^task:\s*["']?([\w./ -]+?)["']?\s*(?:#.*)?$""", re.M)  # a file may have tags of lm-eval's own


def is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def check(tasks: Sequence[str]) -> None:
    """Raises InputError where lm-eval or a task is not there."""
    names, manager = [name_of(task) for task in tasks], manager_of(tasks)
    for task, name in zip(tasks, names, strict=True):
        if name not in manager.all_tasks:
            cure = "`lm-eval ls tasks` lists them; your own is named by its YAML file."
            raise InputError("a task must be one that lm-eval knows", task, cure)


def name_of(task: str) -> str:
    """What lm-eval calls it."""
    if not is_file(task):
        return task
    path = Path(task).expanduser()
    if not path.is_file():
        raise InputError("a task's YAML file must be there", task, "Check the path.")
    with reading(path):
        found = NAMED.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise InputError("a task's YAML file must say its name", task, "Add a line `task: my-task`.")
    return found[1]


def manager_of(tasks: Sequence[str]) -> Any:
    """lm-eval's index of tasks: its own many thousand only where one of them is named."""
    need("lm_eval")
    folders = sorted({str(Path(task).expanduser().resolve().parent) for task in tasks if is_file(task)})
    own = not all(map(is_file, tasks))
    return import_module("lm_eval.tasks").TaskManager(include_path=folders or None, include_defaults=own)


def evaluate(model: Any, tokenizer: Any, tasks: Sequence[str], limit: int | None = None) -> dict[str, dict[str, float]]:
    """Numbers by task and metric, such as {"arc_easy": {"acc": 0.5, "acc_stderr": 0.01}}.

    A task's data come from where it says: the hub or its cache, or files. Raises StageFailure where one cannot be run.
    """
    names, manager = [name_of(task) for task in tasks], manager_of(tasks)
    simple_evaluate: Any = import_module("lm_eval").simple_evaluate
    HFLM: Any = import_module("lm_eval.models.huggingface").HFLM

    try:
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        results = simple_evaluate(
            model=wrapped, tasks=names, task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=False
        )
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
