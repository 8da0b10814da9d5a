"""A smaller model cut out of a larger one: some of its layers, or of its vocabulary, the rest of it as it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import ModuleList
from transformers import LlamaForCausalLM, PreTrainedModel

from alignfirst.errors import InputError
from alignfirst.lm.models.build import empty

# -- layers -----------------------------------------------------------------------------------------------------------


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


# -- vocabulary -------------------------------------------------------------------------------------------------------


def most_used(tokens: NDArray[np.integer[Any]], size: int, always: list[int], never: list[int]) -> NDArray[np.int64]:
    """The `size` tokens that occur most often, ascending; ties go to the smaller number. `always` are among them."""
    count = np.bincount(tokens.ravel(), minlength=max([*always, *never, size]) + 1).astype(np.int64)
    count[always] = np.iinfo(np.int64).max
    count[never] = -1
    order = np.argsort(-count, kind="stable")[:size]
    kept = order[count[order] > 0]
    if len(kept) < size:
        rule = f"a vocabulary of {size} needs as many tokens that were used"
        raise InputError(rule, len(kept), "Count on more samples, or keep fewer tokens.")
    return np.sort(kept)


def cut_vocabulary(model: PreTrainedModel, kept: NDArray[np.int64]) -> PreTrainedModel:
    """A Llama model on the tokens `kept[V]` alone; token i of it is token kept[i] of `model`.

    Rows of embedding and head are cut out, everything else is copied. Logits of the tokens that stay are what they
    were, so the model is the old one with its next-token distribution renormalised over them, exactly, as long as the
    text before consists of them too. Raises InputError for another architecture.
    """
    if type(model) is not LlamaForCausalLM:
        raise InputError("only a Llama model can be cut to part of its vocabulary", type(model).__name__, "Keep all.")
    config = deepcopy(model.config)
    full, config.vocab_size = config.vocab_size, len(kept)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    index = torch.from_numpy(np.ascontiguousarray(kept))
    small = empty(config).to(model.dtype)
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    old = model.state_dict()
    with torch.no_grad():
        for name, place in small.state_dict().items():
            place.copy_(old[name][index] if name in rows and len(old[name]) == full else old[name])
    return small
