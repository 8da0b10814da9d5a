"""Answers to prompts of any lengths: grouped by length, padded in front, given back in the order they were asked in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst.lm.sampling.sample import sample, steps_itself
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Floats, Ints, Prompts, join

MIXED = 32  # rows of several lengths in one call: a cache of 300 tokens of SmolLM2-135M then takes 440 MB


@dataclass(frozen=True)
class DrawnText:
    """N responses of a model, and how likely they were. `L` is the prompts' `new_tokens`."""

    batch: Batch  # N rows
    logp: Floats  # [N, L], nats, of the distribution that was drawn from; 0 beyond a row's end
    forward: SavedForward | None = None  # where it was asked for and could be kept

    @property
    def total_logp(self) -> NDArray[np.float64]:
        """Log-probability of every response, [N] nats."""
        return np.asarray(self.logp.sum(1), np.float64)


def draw_answers(
    model: Any,
    prompts: Prompts,
    which: Ints,
    random: torch.Generator | int,
    temperature: float = 1.0,
    *,
    filtered: str | None = None,
    at_once: int | None = None,
    keep: bool = False,
) -> DrawnText:
    """One response to each of `which` prompts (row numbers, [N], repeats allowed).

    `random` is a seed or a generator on the CPU; the same one gives the same responses. Logits are divided by
    `temperature` (> 0), then a filter keeps some tokens (`filtered`, see `sample`; None: all). At most `at_once` rows
    are drawn in one call, None: all. Rows are drawn from the shortest prompt to the longest; those drawn together are
    padded in front, where the loop knows padding, and their positions are those that they have alone. `keep` asks for
    the forward pass of the responses: kept where all prompts have one length and the model is small.

    Raises InputError for prompts and answers that do not fit the model's positions, StageFailure where its logits are
    not finite.
    """
    rng = random if isinstance(random, torch.Generator) else torch.Generator().manual_seed(random)
    lengths, size = np.array([len(prompts.rows[i]) for i in which]), at_once or len(which)
    alike = steps_itself(model, int(lengths.max()) + prompts.new_tokens)
    groups = [
        first + rows
        for first in range(0, len(which), size)
        for rows in group_by_length(lengths[first : first + size], alike)
    ]
    batches, logps, forward = [], [], None
    for rows in groups:
        asked = [torch.as_tensor(prompts.rows[i]).to(model.device) for i in which[rows]]
        padded, mask = pad_in_front(asked)
        drawn = sample(
            model,
            padded,
            prompts.new_tokens,
            rng,
            temperature,
            ends=prompts.ends,
            filtered=filtered,
            keep=keep and len(groups) == 1,
            mask=mask,
        )
        forward = drawn.forward
        batches.append(after_prompts(asked, drawn.tokens, drawn.mask))
        logps.append(drawn.logp.double().cpu().numpy())
    back = np.argsort(np.concatenate(groups))
    return DrawnText(join(batches).rows(back), np.concatenate(logps)[back], forward)


def group_by_length(lengths: Ints, alike: bool) -> list[Ints]:
    """Rows that are drawn in one call, by ascending length: all of one length, or several but MIXED at most."""
    order = np.argsort(lengths, kind="stable")
    if alike or lengths.min() == lengths.max():
        return np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    return [order[a : a + MIXED] for a in range(0, len(order), MIXED)]


def pad_in_front(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows of any lengths as [B, P], padded in front, and the mask of what is not padding (None: all)."""
    longest = max(len(x) for x in rows)
    if all(len(x) == longest for x in rows):
        return torch.stack(list(rows)), None
    padded = [torch.nn.functional.pad(x, (longest - len(x), 0)) for x in rows]
    mask = [torch.arange(longest, device=x.device) >= longest - len(x) for x in rows]
    return torch.stack(padded), torch.stack(mask)


def after_prompts(prompts: Sequence[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor) -> Batch:
    """Prompts of any lengths and their answers [B, L], without the padding in front."""
    if len({len(x) for x in prompts}) == 1:
        return Batch.of(torch.stack(list(prompts)).to(tokens.device), tokens, mask)
    rows = [torch.cat([p.to(tokens.device), t]) for p, t in zip(prompts, tokens, strict=True)]
    start = torch.tensor([len(p) for p in prompts], device=tokens.device)
    return Batch(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), start, mask)
