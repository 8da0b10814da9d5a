"""Tiny models whose chat templates end a turn as those of real families do: what tests of turns share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import own_models as made
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from alignfirst.lm.models import load as lm

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
COMMAND_R = (
    "{% for m in messages %}<|START_OF_TURN|><|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|END_RESPONSE|>{% endif %}<|END_OF_TURN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN|><|assistant|>{% endif %}"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
RAISING = "{{ raise_exception('no conversation is good enough') }}"
# template -> the tokenizer's end, special tokens, the token that ends a turn
FAMILIES: dict[str, tuple[str, str, str, str | None]] = {
    "gemma": (GEMMA, "<eos>", "<bos> <start_of_turn> <end_of_turn>", "<end_of_turn>"),
    "phi-3": (PHI3, "<|endoftext|>", "<|user|> <|assistant|> <|end|>", "<|end|>"),
    "chatml": (CHATML, "<|endoftext|>", "<|im_start|> <|im_end|>", "<|im_end|>"),
    "llama-2": (LLAMA2, "</s>", "<s>", "</s>"),
    "command-r": (
        COMMAND_R,
        "<EOS>",
        "<|START_OF_TURN|> <|user|> <|assistant|> <|END_RESPONSE|> <|END_OF_TURN|>",
        "<|END_OF_TURN|>",
    ),
    "harmony": (HARMONY, "<|endoftext|>", "<|start|> <|message|> <|return|> <|end|>", "<|return|>"),
    "no token": (PLAIN, "<|endoftext|>", "", None),
    "raises": (RAISING, "<|endoftext|>", "", None),
}  # fmt: skip
DIFFERING = ("gemma", "phi-3", "chatml")


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, the family's special tokens and template."""
    template, eos, special, _ = FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bos = {"bos_token": special.split()[0]} if family in ("gemma", "llama-2") else {}
    found = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, **bos)
    found.add_special_tokens({"additional_special_tokens": special.split()})
    found.chat_template = template
    return found


def end_of(family: str) -> int | None:
    word = FAMILIES[family][3]
    return None if word is None else int(tokenizer(family).convert_tokens_to_ids(word))


def teacher(folder: Path, family: str, likely: float = 0.0, generation: Any = None) -> Path:
    """A tiny Llama that ends a turn with a probability of about `likely` a token, and no text otherwise."""
    tokens = tokenizer(family)
    sizes = lm.TinyLlama(
        len(tokens), hidden=16, layers=4, heads=2, kv_heads=1, intermediate=32, positions=128, tie=False
    )
    model = lm.build(sizes, 1)
    if likely:
        with torch.no_grad():  # one feature is the same everywhere, and only the head's row of the end token reads it
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
            model.model.embed_tokens.weight[:, 0] = 1.0
            model.lm_head.weight[:, 0] = 0.0
            size = float(np.sqrt(16.0))  # of the feature after the norm, as the others are small
            model.lm_head.weight[end_of(family), 0] = np.log(likely / (1 - likely) * len(tokens)) / size
    lm.save(model, folder, tokens)
    if generation is not None:
        GenerationConfig(eos_token_id=generation).save_pretrained(folder)
    return folder


def chats(n: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
            "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
        }
        for row in made.pairs(n)
    ]


def generated_lengths(model: Any, prompts: list[list[int]], ends: list[int], new: int) -> np.ndarray:
    """Of answers that transformers draws, the end token included."""
    torch.manual_seed(0)
    found = []
    for ids in prompts:
        settings = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=new, eos_token_id=ends, pad_token_id=0)
        drawn = model.generate(torch.tensor([ids] * 32), generation_config=settings)[:, len(ids) :]
        ended = torch.isin(drawn, torch.tensor(ends))
        found += torch.where(ended.any(1), ended.int().argmax(1) + 1, drawn.shape[1]).tolist()
    return np.array(found)
