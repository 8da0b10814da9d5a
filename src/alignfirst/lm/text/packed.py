"""Many texts in one flat stream without padding: every token sees the prompt of its row and its own response only.

Everything in a transformer but attention treats tokens one by one, so a stream [1, N] goes through the model's own
layers, and attention alone is done segment by segment. A dense [N, N] mask would cost N^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "alignfirst_segments"
BLOCK = 32  # queries at a time on a CPU
PIECE = 512  # tokens at a time in feed-forward layers, whose inner width is what a long row's memory goes into


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


_CURRENT: ContextVar[list[Segment] | None] = ContextVar("segments")


@contextmanager
def attending(model: PreTrainedModel, segments: list[Segment] | None) -> Iterator[None]:
    """Within the block the model's attention goes by segments; None: rows of one length, each causal as a whole.

    Feed-forward layers work in pieces of tokens meanwhile.
    """
    before = model.config._attn_implementation
    token = _CURRENT.set(segments)
    layers = [m for m in model.modules() if type(m).__name__.endswith("MLP") and "forward" not in vars(m)]
    model.set_attn_implementation(NAME)
    try:
        for layer in layers:
            layer.forward = _in_pieces(layer.forward)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
        model.set_attn_implementation(before)
        _CURRENT.reset(token)


def _in_pieces(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A layer that treats tokens one by one, [B, N, D] -> [B, N, D], some at a time."""

    def pieces(x: Tensor) -> Tensor:
        if x.shape[:-1].numel() <= PIECE:
            return forward(x)
        out = torch.empty_like(x).view(-1, x.shape[-1])
        for begin, some in enumerate(x.reshape(-1, x.shape[-1]).split(PIECE)):
            out[begin * PIECE : begin * PIECE + len(some)] = forward(some[None])[0]
        return out.view_as(x)

    return pieces


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **extra: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [B, H, N, d], key and value [B, H_kv, N, d] -> [B, N, H, d]."""
    segments = _CURRENT.get()
    whole = [Segment(0, query.shape[2])]
    window = extra.get("sliding_window")
    longest = max(s.end - s.begin + s.prompt[1] - s.prompt[0] for s in segments or whole)
    if extra.get("softcap") or extra.get("s_aux") is not None or (window and window < longest):
        raise Unsupported
    scale = extra.get("scaling") or query.shape[-1] ** -0.5
    out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    for s in segments or whole:
        q, k, v = (x[:, :, s.begin : s.end] for x in (query, key, value))
        if s.prompt[1] > s.prompt[0]:
            k, v = (torch.cat([x[:, :, slice(*s.prompt)], y], 2) for x, y in ((key, k), (value, v)))
        _causal(q, k, v, scale, out[:, s.begin : s.end])
    return out, None


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor) -> None:
    """Softmax attention of the last N of M tokens, query [B, H, N, d], key, value [B, H_kv, M, d] -> out [B, N, H, d].

    In blocks of queries that see no key behind their last one, all heads of a group against the same keys. torch's
    fused attention on a CPU takes half as long again at 500 tokens, and wants keys repeated and a mask for N < M.
    """
    batch, heads, n, width = query.shape
    groups = batch * key.shape[1]
    m, block = key.shape[2], BLOCK if query.device.type == "cpu" else 1024
    turned = key.transpose(2, 3).reshape(groups, width, m)
    value = value.reshape(groups, m, -1)
    later = torch.full((block, block), -torch.inf, dtype=query.dtype, device=query.device).triu_(1)
    for begin in range(0, n, block):
        end = min(begin + block, n)
        rows, seen = end - begin, m - n + end
        q = (query[:, :, begin:end] * scale).reshape(groups, -1, width)  # [B H_kv, G rows, d]
        scores = torch.bmm(q, turned[:, :, :seen]).view(groups, -1, rows, seen)
        scores[..., seen - rows :] += later[:rows, :rows]
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
        found = torch.bmm(weights.view(groups, -1, seen), value[:, :seen])
        out[:, begin:end] = found.view(batch, heads, rows, -1).transpose(1, 2)


AttentionInterface.register(NAME, attend)
