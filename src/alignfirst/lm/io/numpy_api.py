"""NumPy in, NumPy out: what a world needs of this room without importing torch itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst import sharding
from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.align.coefficients import draw
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.forward import token_logps
from alignfirst.lm.training.processes import ALONE, Accelerated, Team
from alignfirst.nodes import Artefact, Failure, Load, Node, Outcome

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]
TOGETHER = 512  # sequences in one call; part of what a draw gives
NUMBERS = ("LOCAL_RANK", "ALIGNFIRST_WORKER")  # of this process on its machine: from a launcher, or from the engine


def one_thread() -> None:
    """One thread in this process: two are slower on small models, and sums come out the same on every machine."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def one_by_one(work: Callable[[Node, Load], Artefact], nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Nodes share no work but the loading of their inputs, so that none depends on which stand beside it."""
    one_thread()
    return [_outcome(work, node, load) for node in nodes]


def _outcome(work: Callable[[Node, Load], Artefact], node: Node, load: Load) -> Outcome:
    try:
        return work(node, load)
    except (StageFailure, InputError) as e:
        return Failure(str(e))


def prompts_of(rows: Tokens, new_tokens: int, eos: int | None = None) -> Prompts:
    """Prompts of one length, rows[P, M]; every answer has `new_tokens` tokens unless `eos` ends it."""
    return Prompts(torch.from_numpy(np.ascontiguousarray(rows)), new_tokens, eos)


def batch_of(prompts: Tokens, responses: Tokens) -> Batch:
    """prompts [B, M] and responses [B, L]."""
    return Batch.of(torch.from_numpy(np.ascontiguousarray(prompts)), torch.from_numpy(np.ascontiguousarray(responses)))


@torch.no_grad()
def answers(model: Any, prompts: Prompts, which: Tokens, seed: int) -> tuple[Batch, Floats]:
    """One answer to each of `which` prompts, of any lengths, and its log-probability, [N]."""
    batch, logp = draw(model, prompts, which, torch.Generator().manual_seed(seed))
    return batch, logp.sum(1)


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


# -- texts that may end early -----------------------------------------------------------------------------------------


def masked_batch(prompt: Tokens, tokens: NDArray[Any], lengths: NDArray[Any]) -> Batch:
    """Texts [B, L] of which the first `lengths[B]` tokens are their own, after one prompt [P]."""
    rows = torch.from_numpy(tokens.astype(np.int64))
    mask = torch.arange(rows.shape[1]) < torch.from_numpy(lengths.astype(np.int64))[:, None]
    return Batch.of(torch.from_numpy(prompt).repeat(len(rows), 1), rows, mask)


@torch.no_grad()
def texts_of(
    model: Any, prompts: Prompts, n: int, seed: int, temperature: float, together: int = 256
) -> tuple[Tokens, Tokens, Floats]:
    """n texts to the first of the prompts: tokens [n, L], own tokens [n], log-probability at the temperature [n]."""
    found: list[tuple[Any, ...]] = []
    rng = torch.Generator().manual_seed(seed)
    for a in range(0, n, together):
        batch, logp = draw(model, prompts, np.zeros(min(together, n - a), np.int64), rng, temperature)
        found.append((responses_of(batch), batch.lengths.cpu().numpy(), logp.sum(1)))
    tokens, lengths, logps = (np.concatenate(part) for part in zip(*found, strict=True))
    return tokens, lengths, logps


def dtype(name: str) -> Any:
    """A floating type of torch by its name."""
    return getattr(torch, name)


def device() -> str:
    """Where models are trained here: on a CPU, or on the GPU that is this process's by its number on the machine."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32: weights stay in float32
    return where()


def where() -> str:
    """The same, with the precision left as it is."""
    if not torch.cuda.is_available():
        return "cpu"
    number = next((int(os.environ[name]) for name in NUMBERS if name in os.environ), 0)
    return f"cuda:{number % torch.cuda.device_count()}"


@cache
def team() -> Team:
    """The processes that this one was started with by `accelerate launch` or torchrun, or itself alone."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() or int(os.environ["WORLD_SIZE"]) < 2:
        return ALONE
    from accelerate import Accelerator

    return Accelerated(Accelerator(cpu=not torch.cuda.is_available()), every_pass=sharding.sharded())
