"""NumPy in, NumPy out: what a world needs of this room without importing torch itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst.lm.batch import Batch, Prompts
from alignfirst.lm.forward import token_logps
from alignfirst.lm.rollout import draw

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]
TOGETHER = 512  # sequences in one call; part of what a draw gives


def one_thread() -> None:
    """One thread in this process: two are slower on small models, and sums come out the same on every machine."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def prompts_of(rows: Tokens, new_tokens: int) -> Prompts:
    """Prompts of one length, rows[P, M]; every answer has `new_tokens` tokens."""
    return Prompts(torch.from_numpy(np.ascontiguousarray(rows)), new_tokens)


def batch_of(prompts: Tokens, responses: Tokens) -> Batch:
    """prompts [B, M] and responses [B, L]."""
    return Batch.of(torch.from_numpy(np.ascontiguousarray(prompts)), torch.from_numpy(np.ascontiguousarray(responses)))


def first_tokens(batch: Batch) -> Tokens:
    """The first token of every row, [B]."""
    return np.asarray(batch.tokens[:, 0].cpu().numpy())


def responses_of(batch: Batch) -> Tokens:
    """[B, L]"""
    return np.asarray(batch.responses.cpu().numpy())


@torch.no_grad()
def drawn(model: Any, prompts: Prompts, which: Tokens, seed: int) -> tuple[Tokens, Floats]:
    """One answer to each of `which` prompts, [N, L], and its log-probability, [N]. The same seed, the same noise."""
    tokens, logps = [], []
    rng = torch.Generator().manual_seed(seed)
    for a in range(0, len(which), TOGETHER):
        batch, logp = draw(model, prompts, which[a : a + TOGETHER], rng)
        tokens.append(responses_of(batch))
        logps.append(logp.sum(1))
    return np.concatenate(tokens), np.concatenate(logps)


def logp_of(model: Any, batch: Batch) -> Floats:
    """log-probability of every response, [B]."""
    return np.asarray(token_logps(model, batch, TOGETHER).sum(1))
