"""Models made here: Llama-style ones from a few sizes, fresh weights from a seed, weights to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from alignfirst.errors import InputError

Arrays = Mapping[str, NDArray[Any]]
INIT_STD = 0.02


@dataclass(frozen=True)
class TinyLlama:
    """Sizes of a Llama-style model without dropout. `tie`: input and output embeddings are one matrix."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    positions: int
    tie: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab", "hidden", "layers", "heads", "kv_heads", "intermediate", "positions"):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise InputError(f"{name} must be a whole number >= 1", size, "Give the model a size.")
        if self.hidden % (2 * self.heads):
            raise InputError(
                "hidden must be a multiple of 2 x heads (rotations act on pairs)",
                f"{self.hidden} and {self.heads} heads",
                "Change either.",
            )
        if self.heads % self.kv_heads:
            raise InputError("heads must be a multiple of kv_heads", f"{self.heads}, {self.kv_heads}", "Change either.")

    def to_config(self) -> LlamaConfig:
        """The config that transformers builds it from. No token is special: a grammar has no begin or end."""
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            intermediate_size=self.intermediate,
            max_position_embeddings=self.positions,
            tie_word_embeddings=self.tie,
            initializer_range=INIT_STD,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )


@dataclass(frozen=True)
class SmolLlama(TinyLlama):
    """Sizes of a model with SmolLM2's rotations and norms: its architecture at any size."""

    theta: float = 100_000.0
    epsilon: float = 1e-5

    def to_config(self) -> LlamaConfig:
        config = super().to_config()
        config.rope_parameters = {"rope_type": "default", "rope_theta": self.theta}
        config.rms_norm_eps = self.epsilon
        return config


def build(config: TinyLlama | PreTrainedConfig, seed: int) -> LlamaForCausalLM:
    """A model with fresh weights that depend on config and seed only, in float32 and eval mode.

    Matrices are normal with sd 0.02, drawn in the order of their names, so that no other draw and no version of
    transformers moves them; norms are one, biases zero. Any other architecture keeps its own rule, seeded.
    """
    own_rule = not isinstance(config, TinyLlama) and config.model_type != "llama"
    model = empty(config, seed if own_rule else None)
    if not own_rule:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sorted(model.named_parameters()):
                if weight.ndim > 1:
                    weight.normal_(0.0, INIT_STD, generator=generator)
                else:
                    weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def parameter_count(config: TinyLlama) -> int:
    """Number of weights of `build(config, seed)`; tied ones count once."""
    width = config.hidden // config.heads
    attention = 2 * config.hidden * width * (config.heads + config.kv_heads)
    block = attention + 3 * config.hidden * config.intermediate + 2 * config.hidden
    return config.vocab * config.hidden * (1 if config.tie else 2) + config.layers * block + config.hidden


def to_arrays(model: PreTrainedModel) -> dict[str, NDArray[Any]]:
    """Weights and stored buffers by name, bit for bit; tied weights once; bfloat16 as its bits in uint16."""
    stored = model.state_dict()
    return {name: _to_numpy(stored[name]) for name in stored_names(model)}


def stored_names(model: PreTrainedModel) -> list[str]:
    """Names in the state dict, each tensor under one of its names (torch lists a tied one under its first)."""
    first = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return [name for name in model.state_dict() if name in first]


def from_arrays(config: TinyLlama | PreTrainedConfig, arrays: Arrays) -> LlamaForCausalLM:
    """The model that `to_arrays` took apart. InputError when names, shapes or types do not fit the config."""
    model = empty(config)
    expected = set(stored_names(model))
    if expected != set(arrays):
        strange = sorted(expected ^ set(arrays))
        raise InputError("weights must be those of the config", f"{len(strange)} names differ: {strange[0]}", _CURE)
    tensors = {name: _to_torch(array) for name, array in arrays.items()}
    types = {t.dtype for t in tensors.values() if t.is_floating_point()}
    if len(types) != 1:
        raise InputError("weights must share one floating type", sorted(map(str, types)), _CURE)
    model.to(types.pop())
    with torch.no_grad():
        for name, place in model.state_dict().items():
            if name in tensors:
                if place.shape != tensors[name].shape:
                    shapes = f"{name}: {tuple(tensors[name].shape)}, not {tuple(place.shape)}"
                    raise InputError("weights must have the shapes of the config", shapes, _CURE)
                place.copy_(tensors[name])
    return model


_CURE = "Use the config that the weights were saved with."


def empty(config: TinyLlama | PreTrainedConfig, seed: int | None = None) -> Any:
    """A model in eval mode; weights as the seed says, or not set at all. The global random state is left as it was."""
    hf = config.to_config() if isinstance(config, TinyLlama) else config
    kind: Any = LlamaForCausalLM if hf.model_type == "llama" else AutoModelForCausalLM
    make = kind._from_config if kind is LlamaForCausalLM else kind.from_config
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
            model = make(hf, dtype=torch.float32)
        else:
            with no_init_weights():
                model = make(hf, dtype=torch.float32)
            model.tie_weights()
    return model.eval()


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().copy()
    return np.array(tensor.numpy())


def _to_torch(array: NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor
