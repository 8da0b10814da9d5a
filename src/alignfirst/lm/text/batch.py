"""Responses to prompts, as the trainers pass them around."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignfirst.errors import InputError

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]
STORED = ("tokens", "start", "mask")


@dataclass(frozen=True)
class Batch:
    """B responses: `tokens[B, T]` holds prompt, response, padding; the response of row b begins at `start[b]`.

    `mask[B, L]` says which of the L response positions are a row's own: a prefix of each row. Padding is on the right,
    so that causal attention needs no mask. Token ids are those of the model that will read them, 0 <= id < V, and every
    row has at least one token before its response. All three tensors are on one device.
    """

    tokens: Tensor  # [B, T], int64
    start: Tensor  # [B], int64, >= 1
    mask: Tensor  # [B, L], bool

    @classmethod
    def of(cls, prompts: Tensor, responses: Tensor, mask: Tensor | None = None) -> Batch:
        """Prompts [B, P] of one length and responses [B, L]; without a mask [B, L] all positions are a row's own."""
        tokens = torch.cat([prompts, responses], dim=1)
        start = torch.full((len(tokens),), prompts.shape[1], dtype=torch.long, device=tokens.device)
        return cls(tokens, start, torch.ones_like(responses, dtype=torch.bool) if mask is None else mask.bool())

    @classmethod
    def of_arrays(cls, prompts: Integers, responses: Integers, lengths: Integers | None = None) -> Batch:
        """Prompts [B, P], or one for all rows [P], and responses [B, L], of each the first `lengths[B]` tokens."""
        tokens = torch.from_numpy(np.array(responses, np.int64))
        asked = np.broadcast_to(prompts, (len(tokens), np.shape(prompts)[-1]))
        mask = None
        if lengths is not None:
            mask = torch.arange(tokens.shape[1]) < torch.from_numpy(lengths.astype(np.int64))[:, None]
        return cls.of(torch.from_numpy(np.array(asked, np.int64)), tokens, mask)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int = 0) -> Batch:
        """(prompt ids, response ids) of any lengths. Raises InputError where there is no row."""
        if not rows:
            raise InputError("a batch must have rows", 0, "Give at least one prompt and response.")
        length, longest = max(len(p) + len(r) for p, r in rows), max(len(r) for _, r in rows)
        tokens = torch.tensor([[*p, *r, *[pad] * (length - len(p) - len(r))] for p, r in rows], dtype=torch.long)
        start = torch.tensor([len(p) for p, _ in rows], dtype=torch.long)
        lengths = torch.tensor([len(r) for _, r in rows], dtype=torch.long)
        return cls(tokens, start, torch.arange(longest) < lengths[:, None])

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def positions(self) -> Tensor:
        """Where response tokens stand in `tokens`: [B, L]; padding points at the last column."""
        offsets = torch.arange(self.mask.shape[1], device=self.tokens.device)
        return (self.start[:, None] + offsets).clamp(max=self.tokens.shape[1] - 1)

    @cached_property
    def responses(self) -> Tensor:
        """Response tokens [B, L]; what stands where the mask is False means nothing."""
        return self.tokens.gather(1, self.positions)

    @property
    def response_array(self) -> Ints:
        """`responses` as an array, [B, L]."""
        return np.asarray(self.responses.cpu().numpy())

    @cached_property
    def common_start(self) -> int | None:
        """Where all responses begin, if that is one place and none is padded to beyond the others' end."""
        first = int(self.start[0])
        same = bool((self.start == first).all()) and first + self.mask.shape[1] == self.tokens.shape[1]
        return first if same else None

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each response, [B]."""
        return self.mask.sum(1)

    def total(self, per_token: Tensor) -> Tensor:
        """[B, L] -> [B]: the sum over a row's own tokens, whatever stands beyond them."""
        return torch.where(self.mask, per_token, 0.0).sum(1)

    def rows(self, index: Any) -> Batch:
        """Some rows, by slice or by index."""
        return Batch(self.tokens[index], self.start[index], self.mask[index])

    def trimmed(self) -> Batch:
        """Without columns that are padding in every row."""
        length, longest = int((self.start + self.lengths).max()), max(1, int(self.lengths.max()))
        if (length, longest) == (self.tokens.shape[1], self.mask.shape[1]):
            return self
        return Batch(self.tokens[:, :length], self.start, self.mask[:, :longest])

    def to(self, device: Any) -> Batch:
        """On the device of a model."""
        if self.tokens.device == device:
            return self
        return Batch(self.tokens.to(device), self.start.to(device), self.mask.to(device))

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """What is stored of it, by name; `of_tensors` puts it together again."""
        return {f"{prefix}{name}": getattr(self, name) for name in STORED}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Batch:
        """The batch that `tensors` took apart."""
        return cls(*(tensors[f"{prefix}{name}"] for name in STORED))

    def chunks(self, size: int | None) -> Iterator[Batch]:
        """Consecutive parts of at most `size` rows."""
        size = size or len(self)
        return (self.rows(slice(a, a + size)) for a in range(0, len(self), size))

    def text_ids(self, row: int) -> tuple[list[int], list[int]]:
        """One row's prompt and response as plain lists."""
        ids, start = self.tokens[row].tolist(), int(self.start[row])
        return ids[:start], ids[start : start + int(self.lengths[row])]

    @property
    def n_tokens(self) -> int:
        """Tokens that a forward pass of this batch reads, padding included."""
        return self.tokens.numel()


def join(batches: Sequence[Batch], pad: int = 0) -> Batch:
    """Batches under each other, padded to the longest."""
    if len(batches) == 1:
        return batches[0]
    length, longest = max(b.tokens.shape[1] for b in batches), max(b.mask.shape[1] for b in batches)
    return Batch(
        torch.cat([_widen(b.tokens, length, pad) for b in batches]),
        torch.cat([b.start for b in batches]),
        torch.cat([_widen(b.mask, longest, False) for b in batches]),
    )


def _widen(x: Tensor, width: int, value: float) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value) if x.shape[1] < width else x


@dataclass(frozen=True)
class Prompts:
    """What is asked, and how long answers may be, `new_tokens` >= 1. A token of `ends` ends an answer early.

    Raises InputError where there is no prompt, or one without a token.
    """

    rows: Sequence[Tensor] | Tensor  # 1-D tensors of token ids, or [M, P]
    new_tokens: int
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise InputError("there must be a prompt", 0, "For unconditional text use a beginning-of-text token.")
        if any(len(row) == 0 for row in self.rows):
            raise InputError("a prompt must have a token", 0, "Begin with the model's beginning-of-text token.")
        if self.new_tokens < 1:
            raise InputError("new_tokens must be at least 1", self.new_tokens, "It is the length of an answer.")

    @classmethod
    def of_array(cls, rows: Integers, new_tokens: int, ends: Sequence[int] = ()) -> Prompts:
        """Prompts of one length, `rows[M, P]`."""
        return cls(torch.from_numpy(np.array(rows, np.int64)), new_tokens, tuple(ends))

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], new_tokens: int, ends: Sequence[int] = ()) -> Prompts:
        """Prompts of any lengths, as token ids."""
        return cls([torch.tensor(list(row), dtype=torch.long) for row in rows], new_tokens, tuple(ends))

    def __len__(self) -> int:
        return len(self.rows)
