"""Backward pass through text that was just drawn: its forward pass was saved while drawing, so none is taken again.

The stepper's arithmetic in reverse: last position first, last layer first, because keys and values of a position are
used by all that come after it. Laid out as there, features by rows: `[features, B]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from alignfirst.lm.sampling.fast_llama import Activations, Stepper


class SavedForward:
    """The forward pass of drawn responses. It serves once, and only until the model's weights move.

    `probabilities`: those drawn from, [B, V], one tensor a response position; `tokens` [B, L] were drawn, with
    log-probabilities `logp` [B, L].
    """

    def __init__(self, model: Any, step: Stepper, probabilities: list[Tensor], tokens: Tensor, logp: Tensor) -> None:
        self.model, self.step, self.probabilities = model, step, probabilities
        self.tokens, self.logp = tokens, logp

    @torch.no_grad()
    def add_gradient(self, c: Tensor) -> None:
        """Add the gradient of sum(c * log pi) to that of every weight; c is [B, L], one column for each position."""
        assert self.probabilities, "a saved forward pass serves once"
        back, c = _Backward(self.step, len(c)), c.to(self.probabilities[0].dtype)
        first = self.step.at - len(self.probabilities)  # the position whose logits gave the first token
        for at in reversed(range(self.step.at)):
            dx = torch.zeros_like(self.step.x)
            if at >= first:
                n = at - first
                dx = back.head(self.probabilities[n], self.tokens[:, n], c[:, n], self.step.finals[at])
            back.backward_position(at, dx)
        for weight, gradient in _unfolded(self.model, self.step, back):
            if weight.requires_grad:
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        self.probabilities = []
        self.step.kept.clear()
        self.step.finals.clear()


class _Backward:
    """Gradients of the stepper's folded matrices, added up position by position."""

    def __init__(self, step: Stepper, batch: int) -> None:
        self.s = step
        self.layers = [tuple(torch.zeros_like(m) for m in layer) for layer in step.layers]
        self.head_matrix, self.embed = torch.zeros_like(step.head), torch.zeros_like(step.embed)
        self.cache = torch.zeros_like(step.cache)
        heads = step.kv * step.group
        self.turned = step.embed.new_empty(heads + step.kv, step.width, batch)
        self.packed = step.embed.new_empty((heads + 2 * step.kv) * step.width, batch)

    def head(self, p: Tensor, token: Tensor, c: Tensor, final: tuple[Tensor, Tensor]) -> Tensor:
        """d log softmax(logits)[token] = onehot - p; returns the gradient of the last layer's output, [D, B]."""
        dlogits = (p * -c[:, None]).scatter_add_(1, token[:, None], c[:, None]).T
        self.head_matrix.addmm_(dlogits, final[0].T)
        return _through_norm(self.s.head.T @ dlogits, *final)

    def backward_position(self, at: int, dx: Tensor) -> None:
        """From the gradient of a position's last state to those of its weights: `Stepper.advance` backwards."""
        for n in reversed(range(len(self.layers))):
            kept, (into, out, up, down), grads = self.s.kept[at][n], self.s.layers[n], self.layers[n]
            grads[3].addmm_(dx, kept.inner.T)
            dup = _through_gate(down.T @ dx, kept)
            grads[2].addmm_(dup, kept.normed_mid.T)
            dx = _through_norm(up.T @ dup, kept.normed_mid, kept.scale_mid).add_(dx)
            grads[1].addmm_(dx, kept.attended.T)
            dpacked = self._through_attention(out.T @ dx, kept, at, n)
            grads[0].addmm_(dpacked, kept.normed.T)
            dx = _through_norm(into.T @ dpacked, kept.normed, kept.scale).add_(dx)
        self.embed.index_add_(0, self.s.tokens[at], dx.T)

    def _through_attention(self, dout: Tensor, kept: Activations, at: int, layer: int) -> Tensor:
        """[H d, B] -> [(H + 2 H_kv) d, B]. Past keys and values collect their shares until it is their turn."""
        s, past = self.s, slice(0, at + 1)
        keys, values = (c[past] for c in s.cache[layer])  # [T, H_kv, 1, d, B]
        dkeys, dvalues = self.cache[layer]
        dout = dout.view(s.kv, s.group, s.width, -1)
        w = kept.weights  # [T, H_kv, G, B]
        wd = (values * dout).sum(3).mul_(w)
        dscores = wd.sub_(w * wd.sum(0))
        for into, factor, of in ((dvalues, w, dout), (dkeys, dscores, kept.query)):
            if s.group == 1:
                into[past].addcmul_(factor[:, :, :, None], of)
            else:
                into[past] += (factor[:, :, :, None] * of).sum(2, keepdim=True)
        heads = s.kv * s.group
        torch.sum(keys * dscores[:, :, :, None], 0, out=self.turned[:heads].view_as(dout))
        self.turned[heads:] = dkeys[at, :, 0]
        halves = self.turned.view(-1, 2, s.width // 2, self.turned.shape[-1])
        rotated = self.turned.numel() // self.turned.shape[-1]
        unturned = self.packed[:rotated].view_as(halves)
        torch.mul(halves, s.cos[at], out=unturned).add_((halves * s.sin[at]).flip(1))
        self.packed[rotated:] = dvalues[at].view(-1, self.packed.shape[-1])
        return self.packed


def _through_norm(d: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """normed = x scale, scale = 1 / |x|: d -> scale (d - normed <normed, d>)."""
    return d.sub_(normed * (normed * d).sum(0)).mul_(scale)


def _through_gate(d: Tensor, kept: Activations) -> Tensor:
    """inner = silu(gate) value: d [I, B] -> [2 I, B]."""
    inner = len(d)
    out = d.new_empty(2 * inner, d.shape[1])
    torch.mul(d, kept.active, out=out[inner:])
    torch.ops.aten.silu_backward.grad_input(d.mul_(kept.value), kept.gate, grad_input=out[:inner])
    return out


def _unfolded(model: Any, step: Stepper, back: _Backward) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, its gradient): what was folded into the matrices gets its own."""
    for layer, (into, out, up, down) in zip(model.model.layers, back.layers, strict=True):
        a, m = layer.self_attn, layer.mlp
        yield a.o_proj.weight, out
        yield m.down_proj.weight, down
        qkv = (a.q_proj.weight, a.scaling), (a.k_proj.weight, 1.0), (a.v_proj.weight, 1.0)
        yield from _split(into, qkv, layer.input_layernorm.weight, step.root)
        both = (m.gate_proj.weight, 1.0), (m.up_proj.weight, 1.0)
        yield from _split(up, both, layer.post_attention_layernorm.weight, step.root)
    yield from _split(back.head_matrix, [(model.lm_head.weight, 1.0)], model.model.norm.weight, step.root)
    yield model.model.embed_tokens.weight, back.embed


def _split(
    d: Tensor, parts: Iterable[tuple[Tensor, float]], norm: Tensor, root: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """A folded matrix was `cat(weight * factor) * norm * root`."""
    begin, dnorm = 0, torch.zeros_like(norm)
    for weight, factor in parts:
        rows = d[begin : begin + len(weight)] * (factor * root)
        dnorm += (rows * weight).sum(0)
        yield weight, rows.mul_(norm)
        begin += len(weight)
    yield norm, dnorm
