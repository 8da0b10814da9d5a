"""What is looked at before any weight is trained: data, tokenizers, budgets; disk, memory and time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignfirst import process_environment
from alignfirst.errors import InputError
from alignfirst.lm.models import named_models
from alignfirst.nodes import Json
from alignfirst.world import Preflight
from alignfirst.worlds.user_models.cost import Costs, Spent, scale
from alignfirst.worlds.user_models.node_context import reward_of
from alignfirst.worlds.user_models.resolved_inputs import ResolvedInputs, resolve_inputs

BYTES = {"float32": 4, "bfloat16": 2}
PROCESS = 5e8  # bytes of a process with torch in it
ACTIVE = 32  # numbers that are kept for the way back, by token, layer and width: measured with a Llama of 135 M weights
Recipes = Mapping[str, Sequence[Any]]


def preflight(config: Any, recipes: Recipes, out: Path) -> Preflight:
    """Raises InputError for what cannot work: no usable row, nothing held out, other tokens, no room on the disk."""
    known = resolve_inputs(config)
    parts = [rows(known), models(known), budgets(config, recipes), room(config, known, recipes, out)]
    lines = [line for part in parts for line in part[0]]
    warnings = [warning for part in parts for warning in part[1]]
    data = {name: value for part in parts for name, value in part[2].items()}
    seconds = times(config, recipes)
    total = data["seconds"] = round(sum(data["planned_seconds"].values()), 1)
    lines.append(f"time: about {_duration(total)} of one core for one seed, algorithm and beta (rough)")
    return Preflight(tuple(lines), tuple(warnings), data, seconds)


Part = tuple[list[str], list[str], dict[str, Json]]


def models(known: ResolvedInputs) -> Part:
    """Names, digests, sizes; teacher and student read text alike."""
    config, costs = known.config, Costs(known.config)
    teacher, student = costs.teacher.parameters, costs.student.parameters
    start = next(f"{k} {v}" for k, v in config.student.model_dump().items() if v is not None)
    lines = [
        f"teacher: {config.teacher.model} ({known.teacher['digest'][:19]}), {_weights(teacher)}",
        f"student: {start}, {_weights(student)}",
    ]
    warnings = []
    if config.student.model is not None:
        found = named_models.tokenizer_differences(config.teacher.model, config.student.model)
        if found:
            cure = "Distillation needs the same tokens: choose a student of the teacher's family."
            raise InputError("teacher and student must have the same tokenizer", "; ".join(found), cure)
    if len(known.loaded_tokenizer) > known.rules.vocabulary:
        given = f"{len(known.loaded_tokenizer)} tokens, {known.rules.vocabulary} embeddings"
        raise InputError("models must have an embedding for every token", given, "Use the tokenizer they came with.")
    if known.loaded_tokenizer.eos_token_id is None:
        warnings.append("the tokenizer has no end token: answers are as long as they may be")
    if student >= teacher:
        warnings.append(f"the student has {student:,} weights, the teacher {teacher:,}: it is not smaller")
    data = {"teacher": known.teacher, "student": known.student, "weights": {"teacher": teacher, "student": student}}
    if config.reward.given:
        lines.append(f"reward: {reward_of(known.reward, known.loaded_tokenizer).name}")  # it must be there
        data["reward"] = known.reward
    if config.measure.tasks:
        from alignfirst.lm.io import lm_eval_tasks

        lm_eval_tasks.check(config.measure.tasks)
        lines.append(f"lm-eval: {', '.join(config.measure.tasks)}")
    return lines, warnings, data


def _weights(n: int) -> str:
    return f"{n / 1e6:.1f} M weights" if n >= 1e6 else f"{n:,} weights"


def rows(known: ResolvedInputs) -> Part:
    """What became of every row of the data."""
    meta = known.index.meta
    dropped, notes = meta["dropped"], meta["notes"]
    lines = [
        f"data: {meta['rows']} rows read, {meta['kept']} kept, {meta['rows'] - meta['kept']} dropped; "
        f"{meta['train']} to train on, {meta['held_out']} held out by prompt"
    ]
    warnings = [f"dropped {c['count']}: {reason} ({_lines(c)})" for reason, c in dropped.items()]
    warnings += [f"kept {c['count']}: {what} ({_lines(c)})" for what, c in notes.items()]
    if not meta["kept"]:
        cure = "Repair the file, or name its columns prompt, chosen and rejected."
        raise InputError("at least one row must be usable", "; ".join(warnings) or "no row at all", cure)
    for side, name in (("train", "to train on"), ("held_out", "held out")):
        if not meta[side]:
            cure = "Change data.held_out or data.split_seed, or bring more prompts."
            raise InputError(f"there must be rows {name}", f"none of {meta['kept']}", cure)
    plain = meta["kept"] - meta["conversational"]
    template = getattr(known.loaded_tokenizer, "chat_template", None)
    if plain and template is not None and not known.rules.chat:
        warnings.append(
            f"{plain} rows are plain text, but the tokenizer has a chat template: they are read as they stand. "
            "data.chat=true wraps them."
        )
    if known.rules.chat and template is None:
        raise InputError("data.chat needs a chat template", "a tokenizer without one", "Set data.chat=false.")
    lengths = known.index.arrays["lengths"]
    whole = lengths[:, 0] + lengths[:, 1:].max(1)
    lines.append(f"tokens: {int(lengths.sum()):,} in all, longest row {int(whole.max())} of {known.rules.max_length}")
    for section in ("distil", "measure", *(["align"] if known.config.reward.given else [])):
        new = getattr(known.config, section).new_tokens
        if not (lengths[:, 0] + new <= known.rules.max_length).any():
            given = f"{new} new tokens, {known.rules.max_length} in all"
            raise InputError(f"a prompt must leave room for {section}.new_tokens", given, "Ask for shorter answers.")
    return lines, warnings, {"data": {k: v for k, v in meta.items()}}


def _lines(counted: Mapping[str, Any]) -> str:
    named = counted["lines"]
    more = ", ..." if counted["count"] > len(named) else ""
    return f"line{'s' if len(named) > 1 else ''} {', '.join(map(str, named))}{more}"


def budgets(config: Any, recipes: Recipes) -> Part:
    """Planned cost of every recipe, and what matching does to its updates."""
    costs, first = Costs(config), next(iter(recipes.values()))
    lines, plan, seconds = [f"budget: match {config.budget.match}"], {}, {}
    speed = named_models.speed()
    for algorithm in config.algorithms:
        for name, stages in recipes.items():
            matched = config.budget.match != "updates"
            times = scale(config, stages, first, algorithm) if matched else 1.0
            found = costs.stages(stages, algorithm, times)
            total = sum((s.spent for s in found), Spent())
            words = " -> ".join(f"{s.kind} the {s.model} ({s.updates} updates)" for s in found)
            lines.append(f"  {name}, {algorithm}: {words}; {total.flops:.3g} FLOPs, {total.tokens:.3g} tokens")
            plan[f"{name}, {algorithm}"] = [
                {
                    "stage": s.kind,
                    "model": s.model,
                    "updates": s.updates,
                    "flops": s.spent.flops,
                    "tokens": s.spent.tokens,
                }
                for s in found
            ]
            seconds[f"{name}, {algorithm}"] = total.flops / speed
    return lines, [], {"budget": {"match": config.budget.match, "plan": plan}, "planned_seconds": seconds}


def room(config: Any, known: ResolvedInputs, recipes: Recipes, out: Path) -> Part:
    """Disk for the models that will be kept where the run is, memory for the largest training."""
    need, available = _needed(config, known), _memory()
    kept = max(0.0, _kept(config, recipes) - _stored(out))  # a run that goes on has some of it
    free = shutil.disk_usage(next(p for p in (out.absolute(), *out.absolute().parents) if p.is_dir())).free
    if kept > free:
        given = f"{_bytes(kept)} needed, {_bytes(free)} free in {out}"
        raise InputError("there must be room for the models of a run", given, "Use LoRA, fewer cells or another disk.")
    lines = [f"disk: about {_bytes(kept)} of {_bytes(free)} free", f"memory: about {_bytes(need)} a process"]
    warnings = []
    if available is not None and need > available:
        warnings.append(f"training needs about {_bytes(need)} of memory, {_bytes(available)} are available")
    return lines, warnings, {"disk_bytes": kept, "disk_free": free, "memory_bytes": need}


def _stored(out: Path) -> int:
    """Bytes that the run's store holds."""
    return sum(path.stat().st_size for path in (out / "store").glob("*") if path.is_file())


def _kept(config: Any, recipes: Recipes) -> float:
    """Bytes of all models: a stage before any alignment is shared by the cells of its seed."""
    costs, kept = Costs(config), 0.0
    cells = len(config.seed_list) * len(config.algorithms) * len(config.beta)
    for stages in recipes.values():
        model = "teacher"
        for i, stage in enumerate(stages):
            model = "student" if stage.kind == "distil" else model
            weights = (costs.teacher if model == "teacher" else costs.student).parameters
            small = config.lora.rank and stage.kind in config.lora.stages
            shared = not any(s.kind == "align" for s in stages[: i + 1])
            kept += (0.02 if small else 1.0) * weights * (len(config.seed_list) if shared else cells)
    return BYTES[config.precision] * kept


def _needed(config: Any, known: ResolvedInputs) -> float:
    """Bytes that aligning the teacher takes: weights, gradient and two moments, the reference, activations."""
    costs, size = Costs(config), BYTES[config.precision]
    states = 1.1 if config.lora.rank and "align" in config.lora.stages else process_environment.numbers_per_weight()
    lengths = known.index.arrays["lengths"]
    tokens = config.align.chunk * int((lengths[:, 0] + lengths[:, 1:].max(1)).max())
    plain = known.teacher_architecture
    width = plain.get("hidden_size") or plain.get("n_embd") or costs.teacher.width
    active = float(ACTIVE * costs.teacher.layers * width * tokens)
    return PROCESS + size * (costs.teacher.parameters * (states + 1.0) + active)


def _bytes(n: float) -> str:
    unit, name = next(((u, name) for u, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if n >= u), (1.0, "bytes"))
    return f"{n / unit:.3g} {name}"


def _memory() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text()
        return 1024.0 * int(text.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        try:
            return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (ValueError, OSError, AttributeError):
            return None


def times(config: Any, recipes: Recipes) -> dict[str, float]:
    """Seconds of a node of each kind, on one core."""
    costs, speed = Costs(config), named_models.speed()
    spent: dict[str, list[float]] = {
        "sft": [costs.sft().flops],
        "measure": [costs.measure("teacher").flops, costs.measure("student").flops],
        "draw": [costs.draw("teacher").flops, costs.draw("student").flops],
    }
    for stages in recipes.values():
        for stage in costs.stages(stages, config.algorithms[0]):
            spent.setdefault(stage.kind, []).append(stage.spent.flops)
    return {kind: max(1.0, sum(values) / len(values) / speed) for kind, values in spent.items()}


def _duration(seconds: float) -> str:
    return (
        f"{max(1.0, seconds):.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
