"""What is measured of a model: held-out pairs, its own answers and those of the sft model. Columns of the records.

No ground truth is known here: where science.md speaks of p_star, the sft model stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.auditing.inputs import Target
from alignfirst.auditing.share_intervals import Number, clustered_mean, clustered_share
from alignfirst.data.rows import TokenRow
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.nodes import as_float
from alignfirst.theory.coverage import COVERAGE_N, coverage_profile
from alignfirst.theory.diversity import distinct, repetition

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
DISTINCT = (1, 2, 3)
REPEATED = 2


@dataclass(frozen=True)
class Text:
    """N answers, the prompt each is to, and their log-probability under the model that drew them."""

    batch: Batch
    prompt: Ints  # [N]
    logp: F64  # [N]

    @property
    def tokens(self) -> Ints:
        """[N]"""
        return np.asarray(self.batch.lengths.cpu().numpy(), np.int64)


def draw(model: Any, prompts: Prompts, n: int, seed: int, filtered: str | None = None) -> Text:
    """n answers at temperature 1; prompts take turns. The same seed, the same noise. See `sample` for filters."""
    which = np.arange(n) % len(prompts)
    drawn = draw_answers(model, prompts, which, seed, filtered=filtered)
    return Text(drawn.batch, which, drawn.total_logp)


def logp_of(model: Any, text: Text) -> F64:
    """log-probability of every answer, [N]; a prompt is computed once for its answers."""
    rows: dict[tuple[int, ...], list[int]] = {}
    pairs = [text.batch.text_ids(i) for i in range(len(text.batch))]
    for i, (prompt, _) in enumerate(pairs):
        rows.setdefault(tuple(prompt), []).append(i)
    scored = score_rows(model, [(list(p), [pairs[i][1] for i in which]) for p, which in rows.items()])
    out = np.empty(len(pairs))
    for which, found in zip(rows.values(), scored, strict=True):
        out[which] = [x.sum() for x in found]
    return out


@np.errstate(invalid="ignore")  # a model that broke gives infinities: they become nulls, not warnings
def describe(
    models: Mapping[str, Any],
    held: Sequence[TokenRow],
    own: Text,
    sft: Text,
    rewards: F64 | None,
    target: Target | None = None,
) -> dict[str, Any]:
    """Record columns. `models` are those of the node's roles: model, sft, and the reference of an align stage.

    `rewards` are those of its own answers, [N]; `target` says which are in the target; None where there is none.
    """
    under_sft = own.logp if models["model"] is models["sft"] else logp_of(models["sft"], own)
    recalled = logp_of(models["model"], sft)
    numbers: dict[str, Number] = {
        "overall_precision": clustered_mean(under_sft, own.prompt, "answers"),
        "overall_recall": clustered_mean(recalled, sft.prompt, "answers"),
        "entropy": clustered_mean(-own.logp, own.prompt, "answers"),
        "kl_to_sft": clustered_mean(own.logp - under_sft, own.prompt, "answers"),
    }
    if "reference" in models:
        same = models["reference"] is models["sft"]
        under = under_sft if same else logp_of(models["reference"], own)
        numbers["kl_to_reference"] = clustered_mean(own.logp - under, own.prompt, "answers")
    found: dict[str, Any] = {}
    if rewards is not None:
        numbers["reward"] = clustered_mean(rewards, own.prompt, "answers")
        found["reward_sd"] = as_float(float(rewards.std()))
        if target is not None:
            numbers["target_mass"] = clustered_share(target.holds(rewards), own.prompt, "answers")
    numbers |= held_out(models, held)
    for name, of in (("overall_precision", own), ("overall_recall", sft), ("entropy", own)):
        whole = {"overall_precision": under_sft, "overall_recall": recalled, "entropy": -own.logp}[name]
        found[f"{name}_per_token"] = as_float(float(whole.sum() / max(1, of.tokens.sum())))
    profile = coverage_profile(sft.logp, recalled, np.ones(len(recalled)))
    return found | {name: as_float(number.value) for name, number in numbers.items()} | {
        "coverage": {str(int(n)): round(float(share), 6) for n, share in zip(COVERAGE_N, profile, strict=True)},
        **variety(own),
        "measured_on": len(own.prompt),
        "held_out_pairs": len(held),
        "intervals": {
            name: [as_float(number.low), as_float(number.high)]
            for name, number in sorted(numbers.items())
            if number.low is not None and number.high is not None
        },
    }  # fmt: skip


def held_out(models: Mapping[str, Any], held: Sequence[TokenRow]) -> dict[str, Number]:
    """Held-out pairs: does the implicit reward, log pi - log pi_ref, of the chosen answer exceed that of the other?

    The reference is the stage's own, or sft where a stage has none; a model against itself has no such reward.
    The log-probability of chosen answers stands beside it, for it can fall while the margin grows.
    """
    if not held:
        return {}
    prompt = np.unique([hash_of(row.prompt) for row in held], return_inverse=True)[1]
    logp = scores(models["model"], held)  # [2, P]
    numbers = {
        "logp_chosen": clustered_mean(logp[0], prompt, "held-out pairs"),
        "logp_rejected": clustered_mean(logp[1], prompt, "held-out pairs"),
    }
    reference = models.get("reference", models["sft"])
    if reference is not models["model"]:
        ref = scores(reference, held)
        margin = (logp[0] - ref[0]) - (logp[1] - ref[1])
        numbers["held_out_margin"] = clustered_mean(margin, prompt, "held-out pairs")
        numbers["held_out_accuracy"] = clustered_share((np.sign(margin) + 1) / 2, prompt, "held-out pairs")
    return numbers


def hash_of(ids: Sequence[int]) -> int:
    return hash(tuple(ids))


def scores(model: Any, held: Sequence[TokenRow]) -> F64:
    """log-probability of chosen and rejected answers, [2, P]."""
    scored = score_rows(model, [(row.prompt, [row.chosen, row.rejected]) for row in held])
    return np.array([[x.sum() for x in row] for row in scored]).T


def variety(text: Text) -> dict[str, Any]:
    """How varied answers are; None where none is long enough to say."""
    tokens, lengths = text.batch.response_array, text.tokens
    said = {n: n <= lengths.max(initial=0) for n in {*DISTINCT, REPEATED}}
    return {
        "distinct": {str(n): round(distinct(tokens, n, lengths), 6) if said[n] else None for n in DISTINCT},
        "repetition": round(repetition(tokens, REPEATED, lengths), 6) if said[REPEATED] else None,
    }
