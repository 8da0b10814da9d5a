"""Log-probabilities from hidden states, in tiles: gather minus logsumexp, never a [batch, time, vocabulary] tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from alignfirst.costs.transformer import LOGITS_TILE
from alignfirst.errors import InputError

COLUMNS = 4096  # of the vocabulary at a time, so that the head's matrix is read once for many rows


@dataclass(frozen=True)
class Parts:
    """A causal LM in two: `backbone` makes hidden states, `head` and then `finish` turn them into logits."""

    backbone: nn.Module
    head: nn.Module
    finish: Callable[[Tensor], Tensor] | None


_CHECKED: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()


def parts(model: PreTrainedModel) -> Parts:
    """Backbone and head of a causal LM, checked once a model: together they must give the model's own logits."""
    found = _CHECKED.get(model)
    if found is None:
        head = model.get_output_embeddings()
        backbone = model.base_model
        if head is None or backbone is model:
            raise InputError("a causal LM has a backbone and a head", type(model).__name__, _CURE)
        found = Parts(backbone, head, _finish(model.config))
        _check(model, found)
        _CHECKED[model] = found
    return found


def _finish(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What some architectures do to logits after the head: a factor (Cohere, Granite), a soft cap (Gemma 2)."""
    text = config.get_text_config()
    factor = getattr(text, "logit_scale", None) or 1.0
    if getattr(text, "logits_scaling", None):
        factor = factor / text.logits_scaling
    cap = getattr(text, "final_logit_softcapping", None)
    if cap:
        return lambda logits: torch.tanh(logits * (factor / cap)) * cap
    return None if factor == 1.0 else lambda logits: logits * factor


@torch.no_grad()
def _check(model: PreTrainedModel, found: Parts) -> None:
    device = model.get_input_embeddings().weight.device
    tokens = torch.arange(3, device=device)[None] % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()
    try:
        expected = model(tokens, use_cache=False).logits
        logits = found.head(found.backbone(tokens, use_cache=False).last_hidden_state)
        logits = logits if found.finish is None else found.finish(logits)
    finally:
        model.train(training)
    slack = 64 * torch.finfo(expected.dtype).eps * float(expected.abs().max() + 1)
    if logits.shape != expected.shape or not torch.allclose(logits, expected, rtol=0, atol=slack):
        raise InputError("logits must be the head of the hidden states", type(model).__name__, _CURE)


_CURE = "This architecture does something in between that scoring does not know: use another."


def target_logp(model: PreTrainedModel, hidden: Tensor, targets: Tensor, tile: int = LOGITS_TILE) -> Tensor:
    """log p of `targets[n]` given `hidden[n, D]` -> [n]; float64 for a float64 model, else float32.

    At most `tile` logits are alive at a time. With gradients on, logits are computed again in the backward pass.
    """
    found = parts(model)
    if torch.is_grad_enabled() and (hidden.requires_grad or any(p.requires_grad for p in found.head.parameters())):
        return _with_gradient(found, hidden, targets, tile)
    if type(found.head) is nn.Linear:
        return _by_columns(found, hidden, targets, tile)
    rows = max(1, tile // found.head.weight.shape[0])
    pieces = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([_plain(found, h, t) for h, t in pieces]) if len(hidden) else hidden.new_zeros(0)


def _plain(found: Parts, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = found.head(hidden)
    logits = _wide(logits if found.finish is None else found.finish(logits))
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def _with_gradient(found: Parts, hidden: Tensor, targets: Tensor, tile: int) -> Tensor:
    rows = max(1, tile // found.head.weight.shape[0])
    if len(hidden) <= rows:
        return _plain(found, hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(_plain, found, h, t, use_reentrant=False) for h, t in pieces])


def _by_columns(found: Parts, hidden: Tensor, targets: Tensor, tile: int) -> Tensor:
    """Rows in blocks, the vocabulary in columns, one running logsumexp; works in place.

    float32 log_softmax on a CPU adds 49,152 terms one after the other in each lane, which costs 1e-5 nats a token; here
    a row's sum over columns is torch's pairwise sum, and the sum of those is held in float64.
    """
    weight, bias = found.head.weight, found.head.bias
    columns = min(COLUMNS, tile, weight.shape[0])
    rows = max(1, tile // columns)
    out = torch.empty(len(hidden), dtype=_wide(hidden[:0]).dtype, device=hidden.device)
    for begin in range(0, len(hidden), rows):
        h, t = hidden[begin : begin + rows], targets[begin : begin + rows]
        chosen = torch.empty(len(h), dtype=out.dtype, device=h.device)
        highest = torch.full((len(h),), -math.inf, dtype=out.dtype, device=h.device)
        total = torch.zeros(len(h), dtype=torch.float64, device=h.device)
        for first in range(0, weight.shape[0], columns):
            w = weight[first : first + columns]
            logits = h @ w.T if bias is None else torch.addmm(bias[first : first + columns], h, w.T)
            logits = _wide(logits if found.finish is None else found.finish(logits))
            here = ((t >= first) & (t < first + columns)).nonzero()[:, 0]
            chosen[here] = logits[here, t[here] - first]
            top = torch.maximum(highest, logits.amax(-1))
            total.mul_((highest.double() - top.double()).exp_())
            total.add_(logits.sub_(top[:, None]).exp_().sum(-1))
            highest = top
        out[begin : begin + rows] = chosen.double() - highest.double() - total.log_()
    return out


def _wide(logits: Tensor) -> Tensor:
    """At least float32: half-precision logits are summed in float32, float64 ones stay."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
