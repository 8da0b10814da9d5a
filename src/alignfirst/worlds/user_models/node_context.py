"""What every piece of work of the world of own models has at hand."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from alignfirst.data.index import Rows
from alignfirst.data.rows import TokenRow
from alignfirst.errors import StageFailure
from alignfirst.lm.align.rewards import classifier_of, named
from alignfirst.lm.io import numpy_api
from alignfirst.lm.io.trackers import tracked
from alignfirst.lm.models import named_models
from alignfirst.lm.text.batch import Prompts
from alignfirst.lm.training.counters import Log
from alignfirst.nodes import Artefact, Load, Node
from alignfirst.process_environment import user_modules
from alignfirst.worlds.user_models import models, streams
from alignfirst.worlds.user_models.resolved_inputs import rows_of


class NodeContext:
    """What every node has at hand: its settings, its inputs, the tokenizer, the rows of the data."""

    def __init__(self, node: Node, load: Load) -> None:
        self.node, self.load, self.s = node, load, node.settings
        files = load(self.s["tokenizer"]).arrays
        self.tokenizer = named_models.tokenizer_of(files)
        self.ends = named_models.ends_in(files, self.tokenizer)

    def model(self, role: str) -> Any:
        return models.model_of(self.load(self.node.inputs[role]), self.load, self.s["precision"])

    def tracked(self) -> AbstractContextManager[Log | None]:
        if numpy_api.team().rank:
            return nullcontext()  # the first process of a team tells
        return tracked(f"{self.node.kind}-{self.node.key[:8]}", self.s)

    @property
    def rows(self) -> Rows:
        return rows_of(self.s["data"], self.load(self.s["data"]["index"]), self.tokenizer)

    def training(self, n: int) -> list[TokenRow]:
        """The first n training rows of this seed's order, or all: the same for every stage and recipe."""
        order = streams.generator(self.s["seed"], "rows").permutation(self.rows.side(held=False))
        return self.rows.read(order[:n])

    def audited(self, n: int) -> list[TokenRow]:
        """n training rows, the same for every seed and model."""
        rows = self.rows
        return rows.read(streams.generator(0, "audit-rows").permutation(rows.side(held=False))[:n])

    @cached_property
    def reward(self) -> Any:
        return reward_of(self.s["reward"], self.tokenizer)

    def held_out(self, n: int) -> list[TokenRow]:
        """n held-out rows, the same for every seed."""
        rows = self.rows
        return rows.read(streams.generator(0, "held-out").permutation(rows.side(held=True))[:n])

    def prompts(self, n: int, new_tokens: int, held: bool, seed: int) -> Prompts:
        """n distinct prompts of one side that leave room for the answer."""
        rows = self.rows
        fitting = rows.longest_prompt(rows.encoder.rules.max_length - new_tokens, held)
        purpose: streams.Purpose = "held-out" if held else "rows"
        order = streams.generator(seed, purpose).permutation(fitting)
        distinct: dict[tuple[int, ...], None] = {}
        for a in range(0, len(order), max(n, 1)):
            for row in rows.read(order[a : a + n]):
                distinct.setdefault(tuple(row.prompt))
            if len(distinct) >= n:
                break
        if not distinct:
            raise StageFailure(f"no prompt leaves room for {new_tokens} new tokens")
        return Prompts.of_rows(list(distinct)[:n], new_tokens, self.ends.ids)

    def artefact(self, model: Any, result: Any, base: models.Base, drawn: int | None = None) -> Artefact:
        found = models.artefact_of(model, self.s, base, self.load, result, self.held_out(models.CHECKED))
        return found if drawn is None else Artefact(found.arrays, {**found.meta, "samples": drawn})


def reward_of(s: Mapping[str, Any], tokenizer: Any) -> Any:
    """The reward that a study names: a function of texts, or a classifier. Raises InputError where it is not there."""
    if "function" in s:
        return named(s["function"], tokenizer, user_modules())
    return classifier_of(s["classifier"]["source"], s["classifier"]["digest"], s["label"], tokenizer)
