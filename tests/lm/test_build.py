"""Models made here: fresh weights from a seed, weights to arrays and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given
from hypothesis import strategies as st

from alignfirst.errors import InputError
from alignfirst.lm.models import load as lm

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import TINY, refused, tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return lm.build(TINY, seed=3)


@pytest.fixture
def saved(model: Any, tmp_path: Path) -> Path:
    lm.save(model, tmp_path / "m", tokenizer(template="{{ messages }}"))
    return tmp_path / "m"


@given(
    width=st.sampled_from([2, 4, 6]),
    groups=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    layers=st.integers(1, 2),
    vocab=st.integers(1, 9),
    tie=st.booleans(),
)
def test_arrays_hold_every_weight_once_and_give_the_model_back(
    width: int, groups: int, kv_heads: int, layers: int, vocab: int, tie: bool
) -> None:
    heads = groups * kv_heads
    config = lm.TinyLlama(vocab, width * heads, layers, heads, kv_heads, 5, 8, tie)
    model = lm.build(config, seed=1)
    arrays = lm.to_arrays(model)
    assert sum(a.size for a in arrays.values()) == lm.parameter_count(config)
    back = lm.from_arrays(config, arrays)
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), model.state_dict().values(), strict=True))
    tied = back.lm_head.weight.data_ptr() == back.model.embed_tokens.weight.data_ptr()
    assert tied == tie and not back.training
    tokens = torch.arange(4)[None] % vocab
    assert torch.equal(back(tokens).logits, model(tokens).logits)


def test_arrays_are_copies_in_both_directions(model: Any) -> None:
    arrays = lm.to_arrays(model)
    back = lm.from_arrays(TINY, arrays)
    with torch.no_grad():
        back.lm_head.weight.zero_()
    assert arrays["model.embed_tokens.weight"].any() and model.lm_head.weight.any()


def test_bfloat16_comes_back_bit_for_bit() -> None:
    model = lm.build(TINY, seed=0).to(torch.bfloat16)
    arrays = lm.to_arrays(model)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.uint16)}
    back = lm.from_arrays(TINY, arrays)
    assert back.dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters(), strict=True))


def test_a_seed_is_a_model_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, other = (lm.to_arrays(lm.build(TINY, seed)) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_fresh_weights_have_the_stated_spread() -> None:
    config = lm.TinyLlama(200, 64, 1, 2, 2, 200, 8)
    arrays = lm.to_arrays(lm.build(config, 0))
    for name, a in arrays.items():
        if a.ndim == 1:
            assert (a == 1).all(), name
        else:
            error = 0.02 / np.sqrt(2 * a.size)  # standard error of a standard deviation
            assert abs(a.std() - 0.02) < 5 * error, name
            assert abs(a.mean()) < 5 * 0.02 / np.sqrt(a.size), name


@pytest.mark.parametrize("change", [{"vocab": 13}, {"layers": 3}, {"tie": False}])
def test_weights_of_another_config_are_refused(model: Any, change: dict[str, Any]) -> None:
    other = lm.TinyLlama(**{**TINY.__dict__, **change})
    with refused("config"):
        lm.from_arrays(other, lm.to_arrays(model))


@pytest.mark.parametrize("change", [{"heads": 3}, {"kv_heads": 3}, {"vocab": 0}, {"layers": 1.5}, {"hidden": 4}])
def test_impossible_sizes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        lm.TinyLlama(**{**TINY.__dict__, **change})
