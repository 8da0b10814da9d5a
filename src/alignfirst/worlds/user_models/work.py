"""What the world of own models computes: models fine-tuned, distilled, aligned and measured, all seeded by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from alignfirst.auditing.audit_nodes import run_audit
from alignfirst.auditing.inputs import Target
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.align.trainer import AlignSettings, Pairs, Task
from alignfirst.lm.distil.distillation import distil
from alignfirst.lm.io import numpy_api
from alignfirst.lm.models import named_models
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.torch_streams import permutations
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.sft import sft
from alignfirst.nodes import Artefact, Load, Node, Outcome, rounded
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.trained import aligner, distil_settings
from alignfirst.worlds.user_models import audit_pieces, draws, measure, models, streams
from alignfirst.worlds.user_models.node_context import NodeContext

Settings = Mapping[str, Any]
WARMUP = 0.1
SHOWN = 8  # answers that are kept with a measurement


def run_sft(context: NodeContext) -> Artefact:
    """The teacher as it is, or fine-tuned on the chosen answers."""
    s = context.s
    source = s["teacher"]
    if "steps" not in s:
        meta = {
            "pretrained": dict(source), "architecture": named_models.architecture_of(source["source"]),
            "tokenizer": s["tokenizer"], "updates": 0, "samples": 0, "flops": 0.0, "curves": {},
            "from": models.origin(s),
            "tokens": {"sampled": 0, "scored": 0, "trained": 0},
        }  # fmt: skip
        model = named_models.ready(named_models.model_of(source["source"], source["digest"]), s["precision"])
        return Artefact(meta=meta | {"check": models.checked(model, context.held_out(models.CHECKED))})
    model = named_models.ready(named_models.model_of(source["source"], source["digest"]), s["precision"])
    rows = context.training(s["steps"] * s["batch"])

    order = permutations(streams.generator(s["seed"], "sft"), len(rows), s["batch"])

    def read(picks: Any) -> Batch:
        return Batch.of_rows([(rows[i].prompt, rows[i].chosen) for i in picks])

    with context.tracked() as log:
        result = models.train(
            model, s, streams.number(s["seed"], "sft"),
            lambda: sft(
                model, order, s["steps"], _schedule(s), read=read, chunk=s["chunk"], log=log,
                checkpoints=Checkpoints.of(context.node.key), team=numpy_api.team(),
            ),
        )  # fmt: skip
    return context.artefact(model, result, {"pretrained": dict(source)})


def run_distil(context: NodeContext) -> Artefact:
    """A student of any teacher, on answers to the training prompts."""
    s = context.s
    seed, occurrence = s["seed"], s["occurrence"]
    teacher = context.model("teacher").requires_grad_(False)
    start = {"student": s["student"], "teacher": s["teacher"], "seed": streams.number(seed, "distil-start", occurrence)}
    student = named_models.ready(models.student_of(start), s["precision"])
    settings = distil_settings(s, _schedule(s))
    rehearsal = None
    if "rehearsal" in s:
        rows = context.training(max(1, round(s["rehearsal"] * s["samples"])))
        rehearsal = Batch.of_rows([(r.prompt, r.chosen) for r in rows])
    prompts = context.prompts(s["prompts"], s["new_tokens"], held=False, seed=seed)
    with context.tracked() as log:
        result = models.train(
            student, s, start["seed"],
            lambda: distil(teacher, student, prompts, settings, streams.number(seed, "distil"), rehearsal, log,
                checkpoints=Checkpoints.of(context.node.key), team=numpy_api.team()),
        )  # fmt: skip
    return context.artefact(student, result, start, drawn=None if s["loss"] == "reverse-kl" else s["samples"])


def run_align(context: NodeContext) -> Artefact:
    """One alignment: one algorithm, beta and seed, on the user's pairs or on answers that a reward judges."""
    s = context.s
    seed, method = s["seed"], ALGORITHMS[s["algorithm"]]
    policy = context.model("initial")
    reference = context.model("reference").requires_grad_(False) if method.uses_reference else None
    timeout = s["reward"]["timeout"] if "reward" in s else None
    settings = AlignSettings.of(s, _schedule(s), reward_timeout=timeout)
    number = streams.number(seed, "align")
    with context.tracked() if s["trainer"] == "native" else nullcontext() as log:  # TRL has its own way to trackers
        result = models.train(
            policy, s, streams.number(seed, "align", s["occurrence"]),
            lambda: aligner(context.node, log)(policy, reference, _task(context), settings, number),
        )  # fmt: skip
    return context.artefact(policy, result, {"key": context.node.inputs["initial"]})


def _task(context: NodeContext) -> Task:
    s = context.s
    if "reward" not in s:
        rows = context.training(s["updates"] * s["samples"] // 2)
        pairs = Pairs.of_rows(rows)
        return Task(Prompts.of_rows([rows[0].prompt], 1, context.ends.ids), pairs=pairs)
    prompts = context.prompts(s["updates"] * s["samples"], s["new_tokens"], held=False, seed=s["seed"])
    source = context.model("pairs") if "pairs" in context.node.inputs else None
    return Task(prompts, context.reward, pair_source=source)


def run_measure(context: NodeContext) -> Artefact:
    """One model on held-out pairs and on its own answers to held-out prompts."""
    s, inputs = context.s, context.node.inputs
    models_ = {"model": context.model("model")}
    for role in ("sft", "reference"):
        if role in inputs:
            same = next((r for r in models_ if inputs[r] == inputs[role]), None)
            models_[role] = context.model(role) if same is None else models_[same]
    held = context.held_out(s["pairs"]) if s["data"]["rules"]["kind"] == "pairs" else []
    asked = context.prompts(s["prompts"], s["new_tokens"], held=True, seed=0)
    own_text = measure.draw(models_["model"], asked, s["samples"], streams.number(0, "own-samples"), s.get("filter"))
    sft_text = _sft_text(inputs["sft"], repr(s), lambda: measure.draw(
        models_["sft"], asked, s["samples"], streams.number(0, "teacher-samples")
    ))  # fmt: skip
    target = None if "target" not in s else Target.parse(s["target"])
    rewards = None
    if "reward" in s:
        rewards = rewards_of(context.reward, own_text.batch, "the measurement", s["reward"]["timeout"])
    found = measure.describe(models_, held, own_text, sft_text, rewards, target)
    if "tasks" in s:
        from alignfirst.lm.io.lm_eval_tasks import evaluate

        tasks = [task if isinstance(task, str) else task["file"] for task in s["tasks"]]
        found["lm_eval"] = evaluate(models_["model"], context.tokenizer, tasks, s["task_limit"])
    return Artefact(meta=found | {"shown": _shown(context.tokenizer, own_text, rewards)})


def _shown(tokenizer: Any, text: measure.Text, rewards: measure.F64 | None) -> dict[str, Any]:
    """The first answers and their prompts, for the eye: the same prompts whatever the model."""
    rows = [text.batch.text_ids(i) for i in range(min(SHOWN, len(text.batch)))]
    decoded = tokenizer.batch_decode([answer for _, answer in rows], skip_special_tokens=True)
    prompts = {int(text.prompt[i]): prompt for i, (prompt, _) in enumerate(rows)}  # they take turns: 0, 1, 2, ...
    return {
        "prompts": tokenizer.batch_decode([prompts[k] for k in sorted(prompts)]),
        "texts": [
            {
                "text": words,
                "prompt": int(text.prompt[i]),
                "reward": None if rewards is None else rounded(float(rewards[i])),
            }
            for i, words in enumerate(decoded)
        ],
    }


_TEXTS: dict[tuple[str, str], Any] = {}


def _sft_text(key: str, settings: str, drawn: Callable[[], Any]) -> Any:
    """Answers of the sft model: drawn once for all measurements of a task."""
    if (key, settings) not in _TEXTS:
        _TEXTS.clear()
        _TEXTS[key, settings] = drawn()
    return _TEXTS[key, settings]


def _one_by_one(work: Callable[[NodeContext], Artefact], nodes: Sequence[Node], load: Load) -> list[Outcome]:
    return numpy_api.one_by_one(lambda node, load: work(NodeContext(node, load)), nodes, load)


WORK: Mapping[str, Callable[[NodeContext], Artefact]] = {
    "sft": run_sft,
    "distil": run_distil,
    "align": run_align,
    "measure": run_measure,
    "draw": draws.run_draw,
}
RUN: Mapping[str, Callable[[Sequence[Node], Load], list[Outcome]]] = {
    **{kind: partial(_one_by_one, work) for kind, work in WORK.items()},
    "audit": partial(run_audit, draws.audit_draws),
    "sample": audit_pieces.run,
    "score": audit_pieces.run,
}


def _schedule(s: Settings) -> OptimSettings:
    return OptimSettings(s["learning_rate"], warmup=WARMUP)
