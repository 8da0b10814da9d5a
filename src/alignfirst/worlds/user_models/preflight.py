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
from alignfirst.lm.text.device import core_speed
from alignfirst.nodes import Json
from alignfirst.world import Preflight
from alignfirst.worlds.user_models import cost
from alignfirst.worlds.user_models.node_context import reward_of
from alignfirst.worlds.user_models.resolved_inputs import ResolvedInputs, resolve_inputs, warnings_of

PROCESS = 5e8  # bytes of a process with torch in it
ACTIVE = 32  # numbers that are kept for the way back, by token, layer and width: measured with a Llama of 135 M weights
Recipes = Mapping[str, Sequence[Any]]


def preflight(settings: cost.Settings, config: Any, recipes: Recipes, out: Path) -> Preflight:
    """What is known before any work. `settings`: of the world.

    Raises InputError for what cannot work: no usable row, nothing held out, other tokens, no room on the disk.
    """
    known = resolve_inputs(config)
    parts = [rows(known), models(known), budgets(settings, config, recipes), room(settings, known, recipes, out)]
    lines = [line for part in parts for line in part[0]]
    warnings = [warning for part in parts for warning in part[1]]
    data = {name: value for part in parts for name, value in part[2].items()}
    total = data["seconds"] = round(sum(data["planned_seconds"].values()), 1)
    lines.append(f"time: about {_duration(total)} of one core for one seed, algorithm and beta (rough)")
    return Preflight(tuple(lines), tuple(warnings), data)


Part = tuple[list[str], list[str], dict[str, Json]]


def models(known: ResolvedInputs) -> Part:
    """Names, digests, sizes; teacher and student read text alike."""
    config = known.config
    teacher, student = (
        cost.size_of_architecture(plain).parameters
        for plain in (known.teacher_architecture, known.student_architecture)
    )
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
    ends = known.ends
    if not ends.ids:
        warnings.append("the tokenizer has no end token: answers are as long as they may be")
    elif not ends.agree:
        lines.append(f"answers end at any of {ends.words(known.loaded_tokenizer)}")
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
    lines = [
        f"data: {meta['rows']} rows read, {meta['kept']} kept, {meta['rows'] - meta['kept']} dropped; "
        f"{meta['train']} to train on, {meta['held_out']} held out by prompt"
    ]
    lines += [f"  {said}" for said in meta["read_as"]]
    warnings = warnings_of(meta)
    plain = meta["kept"] - meta["conversational"]
    template = getattr(known.loaded_tokenizer, "chat_template", None)
    if plain and template is not None and not known.rules.chat:
        warnings.append(
            f"{plain} rows are plain text, but the tokenizer has a chat template: they are read as they stand. "
            "data.chat=true wraps them."
        )
    if known.rules.chat and template is None:
        raise InputError("data.chat needs a chat template", "a tokenizer without one", "Set data.chat=false.")
    if template is not None and known.ends.template is None and (known.rules.chat or plain < meta["kept"]):
        warnings.append(
            "no token ends the assistant's turn in the chat template: answers in messages teach no model to stop"
        )
    lengths = known.index.arrays["lengths"]
    whole = lengths[:, 0] + lengths[:, 1:].max(1)
    lines.append(f"tokens: {int(lengths.sum()):,} in all, longest row {int(whole.max())} of {known.rules.max_length}")
    for section in ("distil", "measure", *(["align"] if known.config.reward.given else [])):
        new = getattr(known.config, section).new_tokens
        if not (lengths[:, 0] + new <= known.rules.max_length).any():
            given = f"{new} new tokens, {known.rules.max_length} in all"
            raise InputError(f"a prompt must leave room for {section}.new_tokens", given, "Ask for shorter answers.")
    return lines, warnings, {"data": {k: v for k, v in meta.items()}}


def budgets(settings: cost.Settings, config: Any, recipes: Recipes) -> Part:
    """Planned cost of every recipe, and what matching does to its updates."""
    first, unit = next(iter(recipes.values())), config.budget.match
    lines, plan, seconds = [f"budget: match {unit}"], {}, {}
    for algorithm in config.algorithms:
        for name, recipe in recipes.items():
            times = 1.0 if unit == "updates" else cost.scale(settings, config, recipe, first, algorithm)
            nodes = cost.with_updates(cost.planned(settings, config, recipe, algorithm), config, recipe, times)
            stages, total = _stages(nodes), cost.spent(nodes)
            words = " -> ".join(f"{s['stage']} the {s['model']} ({s['updates']} updates)" for s in stages)
            lines.append(f"  {name}, {algorithm}: {words}; {total.flops:.3g} FLOPs, {total.tokens:.3g} tokens")
            plan[f"{name}, {algorithm}"] = stages
            seconds[f"{name}, {algorithm}"] = total.flops / core_speed()
    return lines, [], {"budget": {"match": unit, "plan": plan}, "planned_seconds": seconds}


def _stages(nodes: cost.Nodes) -> list[dict[str, Json]]:
    """The stages of a recipe after sft: which of the two models learns, in how many updates, at what cost."""
    found, model = [], "teacher"
    for node in list(nodes.values())[1:]:
        spent, model = cost.price(node, nodes), "student" if node.kind == "distil" else model
        updates = node.settings["updates" if node.kind == "align" else "steps"]
        numbers = {"updates": updates, "flops": spent.flops, "tokens": spent.tokens}
        found.append({"stage": node.kind, "model": model, **numbers})
    return found


def room(settings: cost.Settings, known: ResolvedInputs, recipes: Recipes, out: Path) -> Part:
    """Disk for the models that will be kept where the run is, memory for the largest training."""
    need, available = _needed(known), _memory()
    kept = max(0.0, _kept(settings, known.config, recipes) - _stored(out))  # a run that goes on has some of it
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


def _kept(settings: cost.Settings, config: Any, recipes: Recipes) -> float:
    """Bytes of all models: a stage before any alignment is shared by the cells of its seed."""
    kept, seeds = 0.0, len(config.seed_list)
    for recipe in recipes.values():
        nodes, times = cost.planned(settings, config, recipe, config.algorithms[0]), seeds
        for node in list(nodes.values())[1:]:
            times = seeds * len(config.algorithms) * len(config.beta) if node.kind == "align" else times
            kept += times * cost.price(node, nodes).stored
    return kept


def _needed(known: ResolvedInputs) -> float:
    """Bytes that aligning the teacher takes: weights, gradient and two moments, the reference, activations."""
    config, plain = known.config, known.teacher_architecture
    teacher, number = cost.size_of_architecture(plain), cost.BYTES[config.precision]
    states = 1.1 if config.lora.rank and "align" in config.lora.stages else process_environment.numbers_per_weight()
    lengths = known.index.arrays["lengths"]
    tokens = config.align.chunk * int((lengths[:, 0] + lengths[:, 1:].max(1)).max())
    width = plain.get("hidden_size") or plain.get("n_embd") or teacher.width
    active = float(ACTIVE * teacher.layers * width * tokens)
    return PROCESS + number * (teacher.parameters * (states + 1.0) + active)


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


def _duration(seconds: float) -> str:
    return (
        f"{max(1.0, seconds):.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
