"""What an audit draws of own models: answers with their rewards, and what a model makes of the training pairs.

A model's draws are a node of their own, with no word in it of what is planned: audits at other betas, or of another
algorithm, draw nothing again. The sft model is the teacher that stands beside every other; its answers are drawn once,
and a node of another model takes them from the sft model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.inputs import Target
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.auditing.preference_rows import PairRows, Responses
from alignfirst.data.rows import TokenRow
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.nodes import Artefact, Json, Load
from alignfirst.worlds.user_models import measure, streams
from alignfirst.worlds.user_models.node_context import NodeContext

F64 = NDArray[np.float64]
SIDES = ("chosen", "rejected")
OF_ANSWERS = ("logp", "tokens", "rarest", "rarest_at")


def run_draw(context: NodeContext) -> Artefact:
    """Answers of one model to training prompts, and its log-probabilities of training pairs."""
    s, inputs = context.s, context.node.inputs
    model = context.model("model")
    teacher = context.load(inputs["teacher"]) if "teacher" in inputs else None
    arrays: dict[str, NDArray[Any]] = {}
    if "pairs" in s:
        rows = context.audited(s["pairs"])
        arrays |= pairs_of(model, rows)
        if "reward" in s:
            arrays["preferred"] = _rewards(context, Batch.of_rows([(r.prompt, r.chosen) for r in rows]))
    if "reward" in s:
        arrays |= _answers(context, model, teacher)
    return Artefact(arrays, {})


def pairs_of(model: Any, rows: Sequence[TokenRow]) -> dict[str, NDArray[Any]]:
    """What a model makes of preference pairs: for each side [R] log-probability, tokens, least likely token."""
    scored = score_rows(model, [(row.prompt, [row.chosen, row.rejected]) for row in rows])
    found: dict[str, NDArray[Any]] = {"line": np.array([row.line for row in rows], np.int64)}
    found["pair_prompt"] = _told_apart([row.prompt for row in rows])
    for k, side in enumerate(SIDES):
        logps = [each[k] for each in scored]
        found[f"{side}_logp"] = np.array([x.sum() for x in logps])
        found[f"{side}_tokens"] = np.array([len(x) for x in logps], np.float64)
        found[f"{side}_rarest"] = np.array([x.min() for x in logps])
        found[f"{side}_rarest_at"] = np.array([x.argmin() for x in logps], np.int64)
    return found


def _answers(context: NodeContext, model: Any, teacher: Artefact | None) -> dict[str, NDArray[Any]]:
    """The model's answers with their reward; beside a teacher, both models' answers under both."""
    s = context.s
    prompts = context.prompts(s["prompts"], s["new_tokens"], held=False, seed=0)
    text = measure.draw(model, prompts, len(prompts) * s["samples"], streams.number(0, "audit"))
    rows = [text.batch.text_ids(i) for i in range(len(text.batch))]
    found: dict[str, NDArray[Any]] = {
        "prompt": text.prompt,
        "answer_prompt": np.array([t for p, _ in rows for t in p], np.int64),
        "prompt_lengths": np.array([len(p) for p, _ in rows], np.int64),
        "answer": np.array([t for _, a in rows for t in a], np.int64),
        "lengths": np.array([len(a) for _, a in rows], np.int64),
        "logp": text.logp,
        "reward": _rewards(context, text.batch),
    }
    if teacher is not None:
        found["teacher_logp"] = measure.logp_of(model, text_of(teacher))  # of the teacher's answers, under the model
        found["logp_teacher"] = measure.logp_of(context.model("sft"), text)  # of the model's answers, under the teacher
    return found


def text_of(drawn: Artefact) -> measure.Text:
    """Answers that another node drew."""
    a = drawn.arrays
    rows = list(zip(_split(a["answer_prompt"], a["prompt_lengths"]), _split(a["answer"], a["lengths"]), strict=True))
    return measure.Text(Batch.of_rows(rows), a["prompt"], a["logp"])


def _split(flat: NDArray[Any], lengths: NDArray[Any]) -> list[list[int]]:
    return [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]


def _rewards(context: NodeContext, batch: Batch) -> F64:
    return np.asarray(rewards_of(context.reward, batch, "the audit", context.s["reward"]["timeout"]))


def _told_apart(prompts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """A number for each distinct prompt, [R]."""
    seen: dict[tuple[int, ...], int] = {}
    return np.array([seen.setdefault(tuple(p), len(seen)) for p in prompts], np.int64)


# -- from what was drawn to what the audit takes ----------------------------------------------------------------------


def audit_draws(settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
    """Draws of the model in a role, and of the sft model unless that is the same."""
    own = load(inputs[f"drawn-{role}"])
    teacher = None if inputs[role] == inputs["sft"] else load(inputs["drawn-sft"])
    pairs = _pairs(own, teacher) if "line" in own.arrays else None
    if settings["given"] or "reward" not in own.arrays:
        return AuditDraws(None, None, None, pairs, "labels" if settings["rewarded"] else "reward")
    target = None if settings["target"] is None else Target.parse(settings["target"])
    wanted = settings["wanted"]
    preferred = own.arrays.get("preferred") if wanted is None else np.array([wanted], np.float64)
    if teacher is None:
        return AuditDraws(_drawn(own, own.arrays["logp"], own.arrays["logp"], target), None, preferred, pairs)
    return AuditDraws(
        _drawn(own, own.arrays["logp"], own.arrays["logp_teacher"], target),
        _drawn(teacher, own.arrays["teacher_logp"], teacher.arrays["logp"], target),
        preferred,
        pairs,
    )


def _drawn(drawn: Artefact, under_model: F64, under_teacher: F64, target: Target | None) -> Sample:
    reward, prompt = drawn.arrays["reward"], drawn.arrays["prompt"]
    hit = None if target is None else target.holds(reward)
    several = prompt if len(np.unique(prompt)) > 1 else None
    return Sample.of(reward, hit, logp_reference=under_model, logp_teacher=under_teacher, prompt=several)


def _pairs(own: Artefact, teacher: Artefact | None) -> PairRows:
    a = own.arrays
    unknown = np.full(len(a["line"]), np.nan)

    def side(name: str) -> Responses:
        under_teacher = unknown if teacher is None else teacher.arrays[f"{name}_logp"]
        logp, *rest = (a[f"{name}_{what}"] for what in OF_ANSWERS)
        return Responses(logp, under_teacher, *rest)

    return PairRows(a["line"], a["pair_prompt"], side("chosen"), side("rejected"), unknown)
