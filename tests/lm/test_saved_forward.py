"""The backward pass through drawn text gives autograd's gradients, and training on it the same weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from alignfirst.lm.align.trainer import AlignSettings, Task, align
from alignfirst.lm.models.load import TinyLlama, build
from alignfirst.lm.sampling.sample import sample
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import response_logp
from alignfirst.lm.training.optim import OptimSettings


def peaked(config: TinyLlama, seed: int = 0) -> Any:
    """Fresh weights give nearly uniform output; larger ones make every part of the model matter."""
    model = build(config, seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8.0) if p.ndim > 1 else p.add_(0.1 * torch.arange(len(p)) / len(p))
    return model


def gradients(model: Any) -> dict[str, Any]:
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def compare(model: Any, asked: Any, new_tokens: int, ends: tuple[int, ...] = ()) -> Any:
    """Draw, take the saved backward pass, and that of autograd; returns the samples."""
    random = torch.Generator().manual_seed(1)
    drawn = sample(model, asked, new_tokens, random, ends=ends, loop="own", keep=True)
    batch = Batch.of(asked, drawn.tokens, drawn.mask)
    c = torch.randn(batch.mask.shape, dtype=model.dtype, generator=random) * batch.mask
    assert drawn.forward is not None
    drawn.forward.add_gradient(c)
    found = gradients(model)
    logp = response_logp(model, batch)
    (c * logp).sum().backward()
    torch.testing.assert_close(drawn.logp.to(logp.dtype), logp.detach(), rtol=0, atol=1e-4)
    for name, expected in gradients(model).items():
        if expected is None:
            assert found[name] is None
            continue
        assert expected.abs().max() > 0
        # transformers' norms are float32 even in a float64 model
        scale = float(expected.abs().max())
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}")
    return drawn


@given(
    half=st.integers(1, 4),
    groups=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    tie=st.booleans(),
    rows=st.integers(1, 4),
    prompt=st.integers(1, 3),
    length=st.integers(2, 6),
)
@settings(max_examples=25)
def test_gradients_are_those_of_autograd(
    half: int, groups: int, kv_heads: int, layers: int, tie: bool, rows: int, prompt: int, length: int
) -> None:
    heads = groups * kv_heads
    model = peaked(TinyLlama(7, 2 * half * heads, layers, heads, kv_heads, 9, 16, tie)).double()
    asked = torch.randint(7, (rows, prompt), generator=torch.Generator().manual_seed(0))
    compare(model, asked, length)


SMALL = TinyLlama(vocab=11, hidden=24, layers=2, heads=4, kv_heads=2, intermediate=40, positions=20)


def test_answers_that_end_early_take_no_gradient_beyond_their_end() -> None:
    drawn = compare(peaked(SMALL).double(), torch.zeros(6, 1, dtype=torch.long), 12, ends=(3,))
    assert not bool(drawn.mask.all())


def test_frozen_weights_get_no_gradient_and_gradients_add_up() -> None:
    model = peaked(SMALL)
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    compare(model, torch.zeros(3, 1, dtype=torch.long), 5)
    once, twice = [], []
    for times, kept in ((1, once), (2, twice)):
        for _ in range(times):
            drawn = sample(
                model, torch.zeros(3, 1, dtype=torch.long), 5, torch.Generator().manual_seed(2), loop="own", keep=True
            )
            assert drawn.forward is not None
            drawn.forward.add_gradient(torch.ones(3, 5))
        kept += [g for g in gradients(model).values() if g is not None]
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_a_trace_serves_once() -> None:
    drawn = sample(
        peaked(SMALL), torch.zeros(2, 1, dtype=torch.long), 3, torch.Generator().manual_seed(0), loop="own", keep=True
    )
    assert drawn.forward is not None
    drawn.forward.add_gradient(torch.ones(2, 3))
    with pytest.raises(AssertionError, match="once"):
        drawn.forward.add_gradient(torch.ones(2, 3))


def test_keeping_a_trace_changes_no_draw() -> None:
    model, asked = peaked(SMALL), torch.zeros(64, 1, dtype=torch.long)
    plain, kept = (
        sample(model, asked, 8, torch.Generator().manual_seed(3), loop="own", keep=keep) for keep in (False, True)
    )
    assert plain.forward is None and torch.equal(plain.tokens, kept.tokens) and torch.equal(plain.logp, kept.logp)


@pytest.mark.parametrize("temperature, vocab", [(0.5, 11), (1.0, 2000)])
def test_no_trace_where_drawing_computed_something_else(temperature: float, vocab: int) -> None:
    model = build(TinyLlama(vocab, 8, 1, 2, 2, 8, 8), 0)
    random = torch.Generator().manual_seed(0)
    asked = torch.zeros(2, 1, dtype=torch.long)
    assert sample(model, asked, 3, random, temperature=temperature, loop="own", keep=True).forward is None


@pytest.mark.parametrize("algorithm", ["reinforce", "grpo", "ppo", "dpo-online"])
def test_training_on_traces_gives_the_weights_of_training_without(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One update, or for ppo two on one batch: the first along the trace, the second not."""
    taken: list[bool] = []

    def reward(batch: Any) -> Any:
        return (batch.responses < 4).double().mean(1).numpy()

    def trained() -> Any:
        policy = peaked(SMALL).double()
        task = Task(Prompts(torch.zeros(2, 1, dtype=torch.long), 6), reward)
        chosen = AlignSettings(algorithm, 0.1, OptimSettings(1e-3), updates=2, samples=16, group_size=4, chunk=8)
        align(policy, copy.deepcopy(policy), task, chosen, seed=0)
        return policy.state_dict()

    from alignfirst.lm.sampling.saved_forward import SavedForward

    plain_back = SavedForward.add_gradient

    def counted(self: Any, c: Any) -> None:
        taken.append(True)
        plain_back(self, c)

    monkeypatch.setattr(SavedForward, "add_gradient", counted)
    along = trained()
    assert len(taken) == (2 if algorithm == "ppo" else 4)  # two chunks an update
    monkeypatch.setattr("alignfirst.lm.sampling.sample.SMALL", 0)  # no vocabulary is small: no trace is kept
    without = trained()
    assert len(taken) == (2 if algorithm == "ppo" else 4)
    for name, weight in along.items():
        np.testing.assert_allclose(weight.numpy(), without[name].numpy(), atol=2e-5, err_msg=name)
