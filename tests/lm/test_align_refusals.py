"""What an alignment cannot do is refused before any work is done."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignfirst.errors import InputError
from alignfirst.lm.align.trainer import AlignSettings, Task, align
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.text.batch import Batch, Prompts, join
from alignfirst.lm.training.optim import OptimSettings

NEW = 5
ONE = Prompts([torch.tensor([0])], NEW)
USUAL = {"updates": 3, "samples": 16, "group_size": 4, "stored_pairs": 24, "epochs": 2}
MODEL, OTHER = (build(TinyLlama(10, 16, 1, 2, 2, 32, 12), seed) for seed in (1, 2))


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("grpo", {"samples": 18}, "multiple of the group size"),
        ("dpo-online", {"samples": 15}, "two by two"),
        ("grpo", {"samples": 16, "chunk": 6}, "chunk must be a multiple of 4"),
        ("grpo", {"level": "word"}, "level must be"),
        ("grpo", {"kl_in": "nowhere"}, "kl_in must be"),
        ("grpo", {"updates": 0}, "must be >= 1"),
    ],
)
def test_impossible_settings_are_refused(name, changed, words):
    with pytest.raises(InputError, match=words):
        AlignSettings(name, 0.2, OptimSettings(1e-3), **USUAL | changed)


@pytest.mark.parametrize(
    ("name", "beta", "words"),
    [
        ("magic", 0.1, "algorithm must be known"),
        ("grpo", -1.0, "beta must be > 0, got -1"),
        ("grpo", 1e6, "beta must be between"),
        ("dpo-offline", 0.0, "beta must be > 0, got 0: the optimum ignores the reference"),
        ("best-of-n", 0.1, "beta of best-of-n must be 0"),
    ],
)
def test_impossible_betas_are_refused(name, beta, words):
    with pytest.raises(InputError, match=words):
        AlignSettings(name, beta, OptimSettings(1e-3))


def test_impossible_tasks_are_refused():
    for policy, reference, task, words in (
        (MODEL, MODEL, Task(ONE, np.zeros), "model of its own"),
        (MODEL, None, Task(ONE, np.zeros), "needs a reference"),
        (MODEL, OTHER, Task(ONE), "needs a reward"),
        (MODEL, OTHER, Task(Prompts([torch.tensor([0]), torch.zeros(9).long()], NEW), np.zeros), "prompt 1 has 9"),
    ):
        with pytest.raises(InputError, match=words):
            align(policy, reference, task, AlignSettings("grpo", 0.2, OptimSettings(1e-3), **USUAL), 0)
    with pytest.raises(InputError, match="there must be a prompt"):
        Prompts([], NEW)


def test_joining_batches_keeps_every_row():
    a, b = Batch.of_rows([([0], [1, 2])]), Batch.of_rows([([3, 4], [5]), ([6], [7, 8, 9])])
    both = join([a, b])
    assert [both.text_ids(i) for i in range(3)] == [([0], [1, 2]), ([3, 4], [5]), ([6], [7, 8, 9])]
    assert both.lengths.tolist() == [2, 1, 3]
