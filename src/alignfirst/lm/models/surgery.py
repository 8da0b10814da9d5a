"""A smaller model cut out of a larger one: some of its layers, the rest of it as it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch.nn import ModuleList
from transformers import PreTrainedModel

from alignfirst.errors import InputError
from alignfirst.lm.models.build import empty


def kept_layers(total: int, n: int) -> list[int]:
    """Which n of `total` layers a cut keeps: evenly spaced, first and last always; kept_layers(7, 3) is [0, 3, 6].

    Raises InputError unless 2 <= n <= total: between a first and a last layer there are at least two.
    """
    if not isinstance(n, int) or not (2 <= n <= total or n == total == 1):
        raise InputError(f"layers to keep must be a whole number from 2 to {total}", n, "The first and last are kept.")
    return [0] if n == 1 else [(2 * i * (total - 1) + n - 1) // (2 * (n - 1)) for i in range(n)]  # halves go up


def cut_layers(model: PreTrainedModel, n: int) -> PreTrainedModel:
    """A new model of `kept_layers` of this one's layers, with its embeddings, norms and head; weights are copies.

    Same dtype, on the CPU, in eval mode. What the config lists layer by layer (their attention, say) is cut alike. A
    start for a student, not a student: until it is distilled it writes poorly. Raises InputError where the model is
    not one stack of layers.
    """
    total = model.config.num_hidden_layers
    kept = kept_layers(total, n)
    stack = _stack(model, total)
    small = empty(_cut_config(model.config, kept)).to(model.dtype)
    source = model.state_dict()
    origin = {name: _origin(name, stack, kept) for name in small.state_dict()}
    if left := {name for name in source if not _dropped(name, stack, kept)} ^ set(origin.values()):
        raise InputError("a model to cut must be one stack of layers", f"{min(left)} has no place", _CURE)
    with torch.no_grad():
        for name, place in small.state_dict().items():
            place.copy_(source[origin[name]])
    return small


_CURE = "Cut a plain decoder, such as Llama or Qwen."


def _stack(model: PreTrainedModel, total: int) -> str:
    """Name of the layers. Experts within them may be as many; the stack is the outermost."""
    found = [name for name, m in model.named_modules() if isinstance(m, ModuleList) and len(m) == total]
    if not found:
        raise InputError("a model to cut must have a list of layers", type(model).__name__, _CURE)
    return min(found, key=lambda name: name.count("."))


def _cut_config(config: Any, kept: list[int]) -> Any:
    total, small = config.num_hidden_layers, deepcopy(config)
    small.num_hidden_layers = len(kept)
    for name, value in config.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == total:
            setattr(small, name, [value[i] for i in kept])
    return small


def _origin(name: str, stack: str, kept: list[int]) -> str:
    """The name in the whole model of a weight in the cut one."""
    if not name.startswith(f"{stack}."):
        return name
    layer, _, rest = name[len(stack) + 1 :].partition(".")
    return f"{stack}.{kept[int(layer)]}.{rest}"


def _dropped(name: str, stack: str, kept: list[int]) -> bool:
    return name.startswith(f"{stack}.") and int(name[len(stack) + 1 :].partition(".")[0]) not in kept
