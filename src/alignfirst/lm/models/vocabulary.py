"""A causal LM on part of its vocabulary: rows of its embedding and head cut out, everything else as it was.

Logits of the tokens that stay are what they were, so the model is the old one with its next-token distribution
renormalised over them, exactly, as long as the text before consists of them too.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM
from transformers.initialization import no_init_weights

from alignfirst.errors import InputError


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


def pruned(model: Any, kept: NDArray[np.int64]) -> LlamaForCausalLM:
    """A Llama model on the tokens `kept[V]`; token i of it is token kept[i] of `model`."""
    if type(model) is not LlamaForCausalLM:
        raise InputError("only a Llama model can be cut to part of its vocabulary", type(model).__name__, "Keep all.")
    config = copy.deepcopy(model.config)
    full, config.vocab_size = config.vocab_size, len(kept)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    index = torch.from_numpy(np.ascontiguousarray(kept))
    with no_init_weights():
        small = LlamaForCausalLM._from_config(config, dtype=model.dtype)
    small.tie_weights()
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    old = model.state_dict()
    with torch.no_grad():
        for name, place in small.state_dict().items():
            place.copy_(old[name][index] if name in rows and len(old[name]) == full else old[name])
    return small.eval()
