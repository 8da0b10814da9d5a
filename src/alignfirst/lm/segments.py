"""Many texts in one flat stream without padding: every token sees the prompt of its row and its own response only.

Everything in a transformer but attention treats tokens one by one, so a stream [1, N] goes through the model's own
layers, and attention alone is done segment by segment. A dense [N, N] mask would cost N^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "alignfirst_segments"


@dataclass(frozen=True)
class Segment:
    """Queries `begin:end` of the stream. They see `prompt[0]:prompt[1]` whole and themselves causally; the first
    response of a row is one causal run with its prompt, and has an empty `prompt`."""

    begin: int
    end: int
    prompt: tuple[int, int] = (0, 0)


@dataclass
class Stream:
    """Tokens [N], positions [N], segments, and for each response the stream indices that predict its tokens."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    predictors: list[list[int]] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)

    def add(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> None:
        """Append a row. The last token of a response predicts nothing that is asked for and is left out."""
        start, length = len(self.tokens), len(prompt)
        self.tokens += prompt
        self.positions += range(length)
        joined = False
        for response in responses:
            begin, inner = len(self.tokens), response[:-1]
            self.tokens += inner
            self.positions += range(length, length + len(inner))
            end = len(self.tokens)
            self.predictors.append([start + length - 1, *range(begin, end)][: len(response)])
            self.targets.append(list(response))
            if inner and not joined:
                self.segments.append(Segment(start, end))
                joined = True
            elif inner:
                self.segments.append(Segment(begin, end, (start, start + length)))
        if not joined:
            self.segments.append(Segment(start, start + length))


def row_length(prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> int:
    """Tokens that a row takes in a stream."""
    return len(prompt) + sum(max(0, len(r) - 1) for r in responses)


class Unsupported(Exception):
    """The architecture's attention asks for something that segments do not do."""


_CURRENT: ContextVar[tuple[list[Segment], dict[Segment, Tensor]]] = ContextVar("segments")


@contextmanager
def attending(model: PreTrainedModel, segments: list[Segment]) -> Iterator[None]:
    """Within the block the model's attention goes by segments."""
    before = model.config._attn_implementation
    token = _CURRENT.set((segments, {}))
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _CURRENT.reset(token)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **extra: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, N, d], key and value [1, H_kv, N, d] -> [1, N, H, d]."""
    segments, masks = _CURRENT.get()
    window = extra.get("sliding_window")
    longest = max(s.end - s.begin + s.prompt[1] - s.prompt[0] for s in segments)
    if extra.get("softcap") or extra.get("s_aux") is not None or (window and window < longest):
        raise Unsupported
    scale = extra.get("scaling")
    groups = query.shape[1] // key.shape[1]
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for s in segments:
        q, k, v = query[:, :, s.begin : s.end], key[:, :, s.begin : s.end], value[:, :, s.begin : s.end]
        mask = None
        if s.prompt[1] > s.prompt[0]:
            k = torch.cat([key[:, :, slice(*s.prompt)], k], 2)
            v = torch.cat([value[:, :, slice(*s.prompt)], v], 2)
            mask = masks.get(s)
            if mask is None:
                mask = masks[s] = _lower_right(q.shape[2], k.shape[2], q)
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        o = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
        out[:, s.begin : s.end] = o.transpose(1, 2)
    return out, None


def _lower_right(queries: int, keys: int, like: Tensor) -> Tensor:
    """0 where a query may look, -inf after it; the last query sees every key. One mask serves all layers."""
    mask = torch.full((queries, keys), -torch.inf, dtype=like.dtype, device=like.device)
    return mask.triu_(keys - queries + 1)


AttentionInterface.register(NAME, attend)
