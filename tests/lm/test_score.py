"""Scoring against a full log_softmax in float64: padded batches, flat streams, gradients, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from alignfirst.errors import InputError
from alignfirst.lm.models.load import TinyLlama, build
from alignfirst.lm.text import head, logprobs, packed
from alignfirst.lm.text.logprobs import score_rows, token_logp

CONFIG = TinyLlama(vocab=13, hidden=24, layers=2, heads=6, kv_heads=2, intermediate=20, positions=48)
TOKEN = st.integers(0, 12)
ROWS = st.lists(
    st.tuples(st.lists(TOKEN, min_size=1, max_size=7), st.lists(st.lists(TOKEN, max_size=6), max_size=3)), max_size=5
)


def peaked(config: TinyLlama = CONFIG, seed: int = 0) -> Any:
    model = build(config, seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8.0) if p.ndim > 1 else p.add_(0.1 * torch.arange(len(p)) / len(p))
    return model


@pytest.fixture(scope="module")
def double() -> Any:
    return peaked().double()


def full(model: Any, tokens: Any) -> Any:
    """The plain way: [B, T - 1], of every token but the first."""
    logp = model(tokens).logits.double().log_softmax(-1)
    return logp[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]


def full_rows(model: Any, rows: Any) -> list[list[Any]]:
    """Every response alone with its prompt, nothing shared."""
    out = []
    for prompt, responses in rows:
        scored = []
        for response in responses:
            with torch.no_grad():
                logp = full(model, torch.tensor([[*prompt, *response]]))[0]
            scored.append(logp[len(prompt) - 1 :].numpy())
        out.append(scored)
    return out


def same(a: list[list[Any]], b: list[list[Any]], atol: float) -> None:
    assert [[len(x) for x in row] for row in a] == [[len(x) for x in row] for row in b]
    for x, y in zip([v for row in a for v in row], [v for row in b for v in row], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


# -- padded batches ---------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 5),
    length=st.integers(2, 9),
    data=st.data(),
    tile=st.integers(1, 200),
    columns=st.integers(1, 20),
    body=st.integers(1, 2000),
)
@settings(max_examples=60)
def test_equals_a_full_log_softmax_whatever_the_tiles(
    double: Any, rows: int, length: int, data: Any, tile: int, columns: int, body: int
) -> None:
    tokens = torch.tensor(
        data.draw(st.lists(st.lists(TOKEN, min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    start = data.draw(st.integers(1, length))
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "COLUMNS", columns)
        patch.setattr(logprobs, "BODY", body)
        got = token_logp(double, tokens, start, tile=tile)
        expected = full(double, tokens)[:, start - 1 :]
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(double: Any, side: str) -> None:
    lengths, width = [9, 4, 6], 9
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(13, (n,), generator=generator) for n in lengths]
    tokens, mask, start = (
        torch.zeros(3, width, dtype=torch.long),
        torch.zeros(3, width),
        torch.zeros(3, dtype=torch.long),
    )
    for i, text in enumerate(texts):
        begin = width - len(text) if side == "left" else 0
        tokens[i, begin : begin + len(text)], mask[i, begin : begin + len(text)] = text, 1
        start[i] = begin + 2
    with torch.no_grad():
        got = token_logp(double, tokens, start, mask)
        first = int(start.min())
        for i, text in enumerate(texts):
            expected = full(double, text[None])[0, 1:]
            begin = int(start[i]) - first
            np.testing.assert_allclose(got[i, begin : begin + len(expected)], expected, rtol=0, atol=1e-11)
            outside = torch.ones(got.shape[1], dtype=torch.bool)
            outside[begin : begin + len(expected)] = False
            assert (got[i, outside] == 0).all()


def test_a_batch_of_one_equals_the_batch(double: Any) -> None:
    tokens = torch.randint(13, (6, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = token_logp(double, tokens, 3)
        alone = torch.cat([token_logp(double, t[None], 3) for t in tokens])
    np.testing.assert_allclose(whole, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("tile", [1 << 22, 26, 1])
def test_gradients_are_those_of_the_plain_way(tile: int) -> None:
    tokens = torch.randint(13, (4, 7), generator=torch.Generator().manual_seed(2))
    weights = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    grads = []
    for plain in (True, False):
        model = peaked().double()
        logp = full(model, tokens)[:, 1:] if plain else token_logp(model, tokens, 2, tile=tile)
        (logp * weights).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11) and a.abs().max() > 0


def test_masked_tokens_carry_no_gradient() -> None:
    model = peaked()
    tokens = torch.randint(13, (2, 6), generator=torch.Generator().manual_seed(3))
    token_logp(model, tokens, 2, torch.tensor([[1, 1, 0, 0, 0, 0]] * 2)).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("start", [0, 8, torch.tensor([0, 3]), torch.tensor([2, 9])])
def test_impossible_starts_are_refused(double: Any, start: Any) -> None:
    with pytest.raises(InputError, match="response starts"):
        token_logp(double, torch.zeros(2, 7, dtype=torch.long), start)


def test_half_precision_is_summed_in_float32() -> None:
    model = peaked().bfloat16()
    tokens = torch.randint(13, (3, 6), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        got = token_logp(model, tokens, 1)
        assert got.dtype == torch.float32
        # two roundings of bfloat16 logits of size up to 2^3, by 2^-9 of their size each
        np.testing.assert_allclose(got, full(model, tokens), rtol=0, atol=0.1)


def test_float32_sums_over_a_real_vocabulary_have_no_bias() -> None:
    """49,152 terms: float32 log_softmax adds them one by one and is off by 1e-5 on every token, in one direction."""
    config = TinyLlama(vocab=49_152, hidden=32, layers=1, heads=2, kv_heads=1, intermediate=32, positions=400)
    model = build(config, 0)
    tokens = torch.randint(49_152, (1, 300), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        got = token_logp(model, tokens, 1).double()
        expected = full(model.double(), tokens)
    error = (got - expected)[0]
    assert error.abs().max() < 2e-6  # one rounding of a float32 near 10.8
    assert abs(error.sum()) < 1e-3 * 299 / 1000  # the stated bound for a response of 1,000 tokens, in proportion


# -- flat streams -----------------------------------------------------------------------------------------------------


@given(rows=ROWS, stream=st.integers(1, 40), tile=st.integers(1, 200))
@settings(max_examples=80)
def test_rows_of_any_shape_equal_every_response_alone(double: Any, rows: Any, stream: int, tile: int) -> None:
    same(score_rows(double, rows, stream=stream, tile=tile), full_rows(double, rows), 1e-11)


def test_a_row_sees_its_own_prompt_only(double: Any) -> None:
    """Changing one row's prompt changes no other; changing one response changes no sibling."""
    rows = [([1, 2, 3], [[4, 5, 6], [7, 8]]), ([9, 1], [[2, 3, 4, 5]])]
    before = score_rows(double, rows)
    after = score_rows(double, [([3, 2, 1], [[4, 5, 6], [7, 8]]), rows[1]])
    assert np.array_equal(before[1][0], after[1][0]) and abs(before[0][0] - after[0][0]).min() > 1e-6
    sibling = score_rows(double, [([1, 2, 3], [[9, 9, 9], [7, 8]]), rows[1]])
    np.testing.assert_allclose(sibling[0][1], before[0][1], rtol=0, atol=1e-12)


def test_the_prompt_is_computed_once(double: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rows = [([1] * 10, [[2, 3, 4], [5, 6, 7, 8]])]
    score_rows(double, rows)  # the first call tries the architecture
    handle = double.model.embed_tokens.register_forward_hook(lambda m, args, out: seen.append(args[0].numel()))
    try:
        score_rows(double, rows)
    finally:
        handle.remove()
    assert seen == [10 + 2 + 3]  # last tokens of responses predict nothing that is asked for


def test_attention_and_mode_are_given_back(double: Any) -> None:
    before = double.config._attn_implementation
    double.train()
    score_rows(double, [([1], [[2, 3]])])
    assert double.config._attn_implementation == before and double.training
    double.eval()
    with pytest.raises(InputError):
        score_rows(double, [([1], [[2, 99]])])
    assert double.config._attn_implementation == before


def architectures() -> Any:
    from transformers import CohereConfig, Gemma2Config, GPT2Config, GPTNeoXConfig, MistralConfig, Qwen2Config

    sizes = dict(vocab_size=13, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=12)
    kv = sizes | {"num_key_value_heads": 2}
    none = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return {
        "qwen2": Qwen2Config(**kv, **none),
        "narrow window": MistralConfig(**kv, **none, sliding_window=3),
        "wide window": MistralConfig(**kv, **none, sliding_window=9),  # longer than the rows that are tried first
        "gemma2, soft caps": Gemma2Config(**kv, **none, head_dim=4, final_logit_softcapping=2.0),
        "cohere, scaled": CohereConfig(**kv, **none, logit_scale=0.25),
        "gpt-neox": GPTNeoXConfig(**sizes, **none),
        "gpt2": GPT2Config(vocab_size=13, n_positions=128, n_embd=16, n_layer=2, n_head=4, **none),
    }


@pytest.mark.parametrize(
    "name", ["qwen2", "narrow window", "wide window", "gemma2, soft caps", "cohere, scaled", "gpt-neox", "gpt2"]
)
def test_other_architectures_score_as_they_do_themselves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stream cannot do (windows, caps) is noticed and scored response by response."""
    monkeypatch.setattr(packed, "PIECE", 4)  # so that feed-forward layers work in pieces here too
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(architectures()[name], dtype=torch.float64).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    close = 1e-6 if "gemma2" in name else 1e-9  # its norms are taken in float32, whose rounding depends on shapes
    rows = [([1, 2, 3, 4, 5], [[6, 7, 8, 9], [10, 11, 12], [0], [3] * 9]), ([5], [[1, 2, 3, 4, 5, 6], []])]
    same(score_rows(model, rows), full_rows(model, rows), close)
    tokens = torch.randint(13, (2, 90), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        np.testing.assert_allclose(token_logp(model, tokens, 3), full(model, tokens)[:, 2:], rtol=0, atol=close)


def test_long_rows_take_the_same_way_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PIECE", 70)
    config = TinyLlama(vocab=13, hidden=24, layers=2, heads=6, kv_heads=2, intermediate=20, positions=300)
    model = peaked(config).double()
    tokens = torch.randint(13, (3, 201), generator=torch.Generator().manual_seed(8))
    mask = (torch.arange(201) < torch.tensor([201, 70, 150])[:, None]).long()
    seen = []
    before = model.config._attn_implementation
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(model.config._attn_implementation))
    with torch.no_grad():
        got = token_logp(model, tokens, 5, mask)
        handle.remove()
        expected = torch.where(mask[:, 5:].bool(), full(model, tokens)[:, 4:], 0.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    assert seen[-1] != before and model.config._attn_implementation == before
    assert all("forward" not in vars(m) for m in model.modules())
    row = (tokens[0, :90].tolist(), [tokens[0, 90:].tolist(), tokens[1, :75].tolist()])
    same(score_rows(model, [row]), full_rows(model, [row]), 1e-11)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([([], [[1]])], "at least one token"),
        ([([1], [[13]])], "vocabulary"),
        ([([-1], [[1]])], "vocabulary"),
        ([([1], [[2]]), ([1] * 40, [[2] * 9])], "row 1 of 49 tokens"),
    ],
)
def test_impossible_rows_are_refused(double: Any, rows: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score_rows(double, rows)


def test_nothing_to_score_is_nothing(double: Any) -> None:
    assert score_rows(double, []) == []
    assert score_rows(double, [([1, 2], [])]) == [[]]
    [[empty]] = score_rows(double, [([1, 2], [[]])])
    assert empty.shape == (0,)


def test_the_head_of_a_model_that_does_more_is_refused() -> None:
    model = build(CONFIG, 0)
    plain = model.forward
    model.forward = lambda *args, **kwargs: _doubled(plain(*args, **kwargs))
    with pytest.raises(InputError, match="head of the hidden states"):
        token_logp(model, torch.zeros(1, 3, dtype=torch.long), 1)


def _doubled(out: Any) -> Any:
    out.logits = out.logits * 2
    return out


def test_memory_stays_far_below_one_tensor_of_logits() -> None:
    """Largest tensor alive while scoring 1,200 tokens over 20,000 words: 96 MB of logits the plain way."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in weights:
                    Largest.size = max(Largest.size, x.untyped_storage().nbytes())
            return out

    config = TinyLlama(vocab=20_000, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=16, positions=400)
    model = build(config, 0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    tokens = torch.randint(20_000, (4, 300), generator=torch.Generator().manual_seed(6))
    rows = [(t[:100].tolist(), [t[100:200].tolist(), t[200:].tolist()]) for t in tokens]
    score_rows(model, rows)  # the first call tries the architecture
    with Largest(), torch.no_grad():
        token_logp(model, tokens, 1, tile=1 << 18)
        score_rows(model, rows, tile=1 << 18)
    assert 1 << 18 < Largest.size <= 4 << 18  # float32: a tile, and nothing larger
