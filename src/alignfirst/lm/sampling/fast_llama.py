"""A Llama-style model one token at a time, for small models where a framework's bookkeeping costs more than the sums.

Same arithmetic as transformers' module, laid out with the batch last, `[features, B]`: every sum over features or past
tokens then runs along whole vectors of rows. Attention over short pasts is a product and a sum; many tiny matrix
products (and fused attention, which is many of them) take two to three times as long at 512 rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def fits(model: nn.Module) -> bool:
    """Whether the stepper knows this model: plain Llama, default rotations, no biases."""
    c: Any = model.config
    return (
        c.model_type == "llama"
        and type(model).__name__ == "LlamaForCausalLM"
        and c.rope_parameters.get("rope_type", "default") == "default"
        and not (c.attention_bias or c.mlp_bias)
        and c.hidden_act == "silu"
        and all(type(m) is nn.Linear for n, m in model.named_modules() if n.endswith(("_proj", "lm_head")))
    )


class Activations(NamedTuple):
    """What one layer made of one position: all that a backward pass needs."""

    normed: Tensor  # [D, B]
    scale: Tensor  # [B]
    query: Tensor  # [H_kv, G, d, B], rotated
    weights: Tensor  # [T, H_kv, G, B]
    attended: Tensor  # [H d, B]
    normed_mid: Tensor  # [D, B]
    scale_mid: Tensor  # [B]
    gate: Tensor  # [I, B]
    value: Tensor  # [I, B]
    active: Tensor  # [I, B], silu(gate)
    inner: Tensor  # [I, B], active * value


class Stepper:
    """`advance(tokens[B])` takes the next token of every row; `logits()` are those after it, [B, V].

    Weights are those at the time it was made: norms and scales are folded into the matrices that follow them. With
    `keep`, what was computed is kept for `saved_forward.SavedForward`.
    """

    def __init__(self, model: Any, batch: int, positions: int, keep: bool = False) -> None:
        c = model.config
        self.at, self.keep = 0, keep
        self.kept: list[list[Activations]] = []  # [positions][layers]
        self.finals: list[tuple[Tensor, Tensor]] = []  # normed last state of every position, and its scale
        self.tokens: list[Tensor] = []
        self.kv, self.group, self.width = (
            c.num_key_value_heads,
            c.num_attention_heads // c.num_key_value_heads,
            c.head_dim,
        )
        self.root = math.sqrt(c.hidden_size)
        self.eps = c.rms_norm_eps * c.hidden_size  # of the sum of squares, not of their mean
        self.embed = model.model.embed_tokens.weight
        where = torch.arange(positions, device=self.embed.device)
        cos, sin = model.model.rotary_emb(self.embed, where[None])  # [1, positions, width]: both halves the same
        half = self.width // 2
        self.cos = cos[0, :, :half, None]
        self.sin = torch.stack([-sin[0, :, :half], sin[0, :, half:]], 1)[..., None]  # [positions, 2, half, 1]
        self.layers = [self._pack(layer) for layer in model.model.layers]
        self.head = model.lm_head.weight * (model.model.norm.weight * self.root)
        shape = (len(self.layers), 2, positions, self.kv, 1, self.width, batch)
        self.cache = torch.empty(shape, dtype=self.embed.dtype, device=self.embed.device)
        self.x = self.embed[:0].T
        self.final = self.x, self.x[0]

    def _pack(self, layer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (scaled), keys and values [(H + 2 H_kv) d, D]; out [D, H d]; gate and up [2 I, D]; down [D, I]."""
        a, m = layer.self_attn, layer.mlp
        into = torch.cat([a.q_proj.weight * a.scaling, a.k_proj.weight, a.v_proj.weight])
        up = torch.cat([m.gate_proj.weight, m.up_proj.weight])
        return (
            into * (layer.input_layernorm.weight * self.root),
            a.o_proj.weight,
            up * (layer.post_attention_layernorm.weight * self.root),
            m.down_proj.weight,
        )

    def advance(self, tokens: Tensor) -> None:
        x, layers = self.embed[tokens].T.contiguous(), []  # [D, B]
        for (into, out, up, down), (keys, values) in zip(self.layers, self.cache, strict=True):
            normed, scale = self._normed(x)
            query, weights, attended = self._attend(into @ normed, keys, values)
            x = torch.addmm(x, out, attended)
            normed_mid, scale_mid = self._normed(x)
            gate, value = (up @ normed_mid).chunk(2)
            active = silu(gate)
            inner = active * value if self.keep else active.mul_(value)
            x = torch.addmm(x, down, inner)
            if self.keep:
                kept = normed, scale, query, weights, attended, normed_mid, scale_mid, gate, value, active, inner
                layers.append(Activations(*kept))
        self.x, self.final = x, self._normed(x)
        self.at += 1
        if self.keep:
            self.kept.append(layers)
            self.finals.append(self.final)
            self.tokens.append(tokens)

    def logits(self) -> Tensor:
        return (self.head @ self.final[0]).T

    def _normed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x / its length, and 1 / its length; sqrt(D) is in the matrices."""
        scale = (x * x).sum(0).add_(self.eps).rsqrt_()
        return x * scale, scale

    def _attend(self, packed: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """packed [(H + 2 H_kv) d, B], caches [T, H_kv, 1, d, B] -> queries, weights, and what was attended to."""
        batch, heads = packed.shape[1], self.kv * self.group
        rotated = (heads + self.kv) * self.width
        qk = packed[:rotated].view(-1, 2, self.width // 2, batch)
        turned = (qk * self.cos[self.at]).addcmul_(qk.flip(1), self.sin[self.at]).view(-1, self.width, batch)
        keys[self.at] = turned[heads:, None]
        values[self.at] = packed[rotated:].view(self.kv, 1, self.width, batch)
        past = slice(0, self.at + 1)
        q = turned[:heads].view(self.kv, self.group, self.width, batch)
        weights = (q * keys[past]).sum(3).softmax(0)  # [T, H_kv, G, B]
        return q, weights, (weights[:, :, :, None] * values[past]).sum(0).view(-1, batch)
