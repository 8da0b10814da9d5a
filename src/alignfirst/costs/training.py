"""What trainings cost by formula, from the settings of their nodes: every answer is as long as it may be.

`prompt` and `new` are tokens of a prompt and of an answer, means where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from alignfirst.costs.price import Price
from alignfirst.costs.transformer import TransformerSize
from alignfirst.theory.objectives import ALGORITHMS

Settings = Mapping[str, Any]
PROBES = 9  # points of the curves of an offline algorithm, which would never ask the policy by itself


def probe_every(updates: int) -> int:
    """Updates between two of an offline algorithm's probes."""
    return max(1, updates // (PROBES - 1))


def updates_on(
    model: TransformerSize, updates: int, rows: int, chunk: int | None, length: float, new: float, whole: bool = False
) -> Price:
    """Updates on `rows` texts of `length` tokens each, `chunk` of them (None: all) in one pass."""
    size = min(chunk or rows, rows)
    full, rest = divmod(rows, size)
    each = model.train(size, length, size * new, whole) * full
    if rest:
        each += model.train(rest, length, rest * new, whole)
    return each * updates


def distillation(s: Settings, teacher: TransformerSize, student: TransformerSize, prompt: float, new: int) -> Price:
    """`s`: loss, steps, batch, and where they apply samples, rehearsal, chunk: see `lm.distil`."""
    length, seen, whole = prompt + new, s["steps"] * s["batch"], s["loss"] != "sequence"
    learned = updates_on(student, s["steps"], s["batch"], s.get("chunk"), length, new, whole)
    if s["loss"] == "reverse-kl":
        return learned + student.sample(seen, prompt, new) + teacher.score(seen, length, seen * new)
    drawn = s["samples"] - round(s.get("rehearsal", 0) * s["samples"])
    learned += teacher.sample(drawn, prompt, new)
    return learned + teacher.score(drawn, length, drawn * new) if whole else learned


def alignment(
    s: Settings,
    policy: TransformerSize,
    reference: TransformerSize | None,
    prompt: float,
    new: int,
    source: TransformerSize | None = None,
    judge: TransformerSize | None = None,
    probes: int = 0,
) -> Price:
    """`s`: algorithm, updates, samples, and where they apply pairs, epochs, chunk: see `lm.align`.

    `reference` is None for algorithms without one. `source` draws the pairs of an offline algorithm; None: the
    reference, which then need not score them again. `judge` is a model whose log-probabilities are the reward.
    """
    method, updates, length = ALGORITHMS[s["algorithm"]], s["updates"], prompt + new

    def drawn(rows: int, model: TransformerSize, judges: tuple[TransformerSize | None, ...]) -> Price:
        scores = [m.score(rows, length, rows * new) for m in judges if m is not None]
        return sum(scores, model.sample(rows, prompt, new))

    if method.data == "pairs-offline":
        trained = updates_on(policy, updates, 2 * min(s["samples"] // 2, s["pairs"]), s.get("chunk"), length, new)
        if source is None:
            assert reference is not None
            pairs = drawn(2 * s["pairs"], reference, (judge,))
        else:
            pairs = drawn(2 * s["pairs"], source, (judge, reference))
        return trained + pairs + drawn(probes * s["samples"], policy, (judge, reference))
    rows = ceil(updates / s.get("epochs", 1)) * s["samples"]
    total = updates_on(policy, updates, s["samples"], s.get("chunk"), length, new)
    total += drawn(rows, policy, (judge, reference))
    if method.critic:  # the states that its value function sees
        total += (reference or policy).score(rows, length, rows * new)
    return total
