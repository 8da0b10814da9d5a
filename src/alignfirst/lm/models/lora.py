"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft, within a model that stays what it is.

Adapters are injected: the model keeps its class, so that training, sampling and scoring see nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignfirst.errors import InputError
from alignfirst.extras import need

NAME = "default"  # of the adapter within peft


def add_adapters(model: Any, rank: int, alpha: float, seed: int) -> None:
    """Adapters on every linear layer but the head, in place; all other weights are frozen. At first they do nothing.

    Raises InputError where a model has no linear layers that can take one.
    """
    need("peft")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as e:
            raise InputError(
                "a model for LoRA has linear layers", f"{type(model).__name__}: {e}", "Train it in full."
            ) from e
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)


def adapters(model: Any) -> dict[str, NDArray[Any]]:
    """Their weights alone: `<layer>.A` [r, in] and `<layer>.B` [out, r]."""
    found = {}
    for name, weight in model.named_parameters():
        for part in ("A", "B"):
            end = f".lora_{part}.{NAME}.weight"
            if name.endswith(end):
                found[f"{name.removesuffix(end)}.{part}"] = np.array(weight.detach().float().cpu().numpy())
    return found


@torch.no_grad()
def merge(model: Any, arrays: Mapping[str, NDArray[Any]], scale: float) -> Any:
    """W + scale B A for every layer that has them, in a model without adapters, in place. Returns it.

    `scale` is alpha / rank. Raises InputError where a layer is not there.
    """
    layers = dict(model.named_modules())
    for name in sorted({n.rpartition(".")[0] for n in arrays}):
        if name not in layers:
            raise InputError("an adapter's layers must be the model's", name, "Use the model that it was trained on.")
        weight = layers[name].weight
        down, up = (torch.from_numpy(np.array(arrays[f"{name}.{part}"])) for part in ("A", "B"))
        weight += (scale * (up @ down)).to(weight.dtype).to(weight.device)
    return model


def save_adapters(folder: Path, arrays: Mapping[str, NDArray[Any]], rank: int, alpha: float, base: str) -> None:
    """A folder that peft loads onto `base`."""
    need("peft")
    from peft import LoraConfig
    from safetensors.torch import save_file

    names = sorted({n.rpartition(".")[0] for n in arrays})
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0, task_type="CAUSAL_LM", inference_mode=True,
        base_model_name_or_path=base,
    )  # fmt: skip
    config.save_pretrained(folder)
    weights = {
        f"base_model.model.{name[:-2]}.lora_{name[-1]}.weight": torch.from_numpy(np.array(array))
        for name, array in arrays.items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
