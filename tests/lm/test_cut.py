"""Cutting layers out of a model: which stay, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config

from alignfirst.errors import InputError
from alignfirst.lm.models.load import TinyLlama, build, cut_layers, load, save
from alignfirst.lm.models.surgery import kept_layers

SIZES = TinyLlama(vocab=12, hidden=16, layers=7, heads=4, kv_heads=2, intermediate=24, positions=32)
TOKENS = torch.arange(24).reshape(3, 8) % 12


@given(total=st.integers(2, 80), data=st.data())
def test_kept_layers_are_evenly_spaced_and_hold_first_and_last(total: int, data: Any) -> None:
    n = data.draw(st.integers(2, total))
    kept = kept_layers(total, n)
    assert len(kept) == n and kept[0] == 0 and kept[-1] == total - 1
    assert all(abs(k - i * (total - 1) / (n - 1)) <= 0.5 for i, k in enumerate(kept))


def test_smollm2_cut_to_ten() -> None:
    assert kept_layers(30, 10) == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]


@pytest.mark.parametrize("tie", [True, False])
def test_a_cut_is_the_model_whose_other_layers_do_nothing(tie: bool) -> None:
    """A layer whose two outputs are zero hands its input on, so it might as well not be there."""
    model = build(TinyLlama(12, 16, 7, 4, 2, 24, 32, tie), seed=3)
    small = cut_layers(model, 3)
    with torch.no_grad():
        for i in {1, 2, 4, 5}:
            model.model.layers[i].self_attn.o_proj.weight.zero_()
            model.model.layers[i].mlp.down_proj.weight.zero_()
        assert torch.equal(small(TOKENS).logits, model(TOKENS).logits)
    assert small.config.num_hidden_layers == 3 and not small.training
    tied = small.get_output_embeddings().weight.data_ptr() == small.get_input_embeddings().weight.data_ptr()
    assert tied == tie


def test_weights_are_copies_and_the_model_stays_as_it_was() -> None:
    model = build(SIZES, seed=1)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    small = cut_layers(model, 4)
    with torch.no_grad():
        for weight in small.parameters():
            weight.zero_()
    assert model.config.num_hidden_layers == 7
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_a_cut_generates_with_its_own_cache() -> None:
    """Layers know their place in the cache: kept as they were, they would leave holes in it."""
    small = cut_layers(build(SIZES, seed=1), 3)
    with torch.no_grad():
        past = small(TOKENS[:, :5], use_cache=True).past_key_values
        rest = small(TOKENS[:, 5:], past_key_values=past, use_cache=True).logits
        whole = small(TOKENS).logits[:, 5:]
    assert torch.allclose(rest, whole, atol=1e-5)


def test_what_a_config_lists_by_layer_is_cut_alike() -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    sizes = dict(vocab_size=13, hidden_size=16, intermediate_size=12, num_attention_heads=2, num_key_value_heads=1)
    config = Gemma3TextConfig(**sizes, num_hidden_layers=5, head_dim=8, layer_types=kinds, sliding_window=4)
    model = build(config, seed=0)
    small = cut_layers(model, 3)
    assert small.config.layer_types == ["sliding_attention", "sliding_attention", "sliding_attention"]
    assert model.config.layer_types == kinds
    assert type(small) is type(model) and torch.isfinite(small(TOKENS).logits).all()


def test_other_names_for_layers_and_another_dtype() -> None:
    config = GPT2Config(vocab_size=13, n_positions=16, n_embd=8, n_layer=4, n_head=2, bos_token_id=None)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    small = cut_layers(model, 2)
    assert small.config.n_layer == 2 and small.dtype == torch.bfloat16
    assert torch.equal(small.transformer.h[1].attn.c_attn.weight, model.transformer.h[3].attn.c_attn.weight)


def test_all_layers_are_the_model_again() -> None:
    model = build(SIZES, seed=2)
    assert torch.equal(cut_layers(model, 7)(TOKENS).logits, model(TOKENS).logits)


def test_a_cut_can_be_saved_and_loaded(tmp_path: Path) -> None:
    small = cut_layers(build(SIZES, seed=2), 3)
    save(small, tmp_path / "cut")
    back = load(tmp_path / "cut").model
    assert torch.equal(back(TOKENS).logits, small(TOKENS).logits)


@pytest.mark.parametrize("n", [-1, 0, 1, 8, 2.0])
def test_impossible_cuts_are_refused(n: Any) -> None:
    with pytest.raises(InputError, match="from 2 to 7"):
        cut_layers(build(SIZES, seed=0), n)
