"""What a teacher says of the next token: all of it, or its likeliest tokens and the mass of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import next_token_logp

MEMORY_LIMIT = 2 << 30  # bytes of remembered outputs


@dataclass(frozen=True)
class Outputs:
    """Next-token log-probabilities at response positions, in K buckets: tokens, and with an index the tail last."""

    logp: Tensor  # [B, L, K]
    index: Tensor | None = None  # [B, L, K - 1]: which tokens; None: all V of them, and no tail

    def rows(self, index: Any) -> Outputs:
        return Outputs(self.logp[index], None if self.index is None else self.index[index])

    def of_student(self, logp: Tensor) -> Tensor:
        """The student's log-probabilities [B, L, V] in the same buckets, [B, L, K]."""
        return logp if self.index is None else bucketed(logp, self.index)


@torch.no_grad()
def outputs_of(teacher: Any, batch: Batch, temperature: float, top_k: int | None) -> Outputs:
    """The sharpened teacher on a batch."""
    logp = next_token_logp(teacher, batch, temperature)
    if top_k is None or top_k >= logp.shape[-1]:
        return Outputs(logp)
    index = logp.topk(top_k, dim=-1).indices
    return Outputs(bucketed(logp, index), index)


def remember(teacher: Any, text: Batch, temperature: float, top_k: int | None, chunk: int) -> Outputs:
    """Outputs for all of a text, computed once. Refused beyond MEMORY_LIMIT: then keep fewer tokens."""
    vocabulary = teacher.config.vocab_size
    kept = vocabulary if top_k is None or top_k >= vocabulary else 3 * top_k + 1  # an index takes two floats' room
    size = 4 * text.mask.numel() * kept
    if size > MEMORY_LIMIT:
        cure = "Set distil.top_k, for example 64, or use fewer samples."
        raise InputError("the teacher's outputs must fit into 2 GB", f"{size / 2**30:.1f} GB", cure)
    parts = [outputs_of(teacher, b, temperature, top_k) for b in text.chunks(chunk)]
    index = None if parts[0].index is None else torch.cat([p.index for p in parts if p.index is not None])
    return Outputs(torch.cat([p.logp for p in parts]), index)


def bucketed(logp: Tensor, index: Tensor) -> Tensor:
    """[B, L, V] -> log-probabilities of the indexed tokens and, last, of all others together, [B, L, k + 1]."""
    others = logp.scatter(-1, index, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([logp.gather(-1, index), others], dim=-1)


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) per position, [..., K] -> [...]."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(student || teacher) per position, [..., K] -> [...]."""
    return (student.exp() * (student - teacher)).sum(-1)
