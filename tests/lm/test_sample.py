"""Sampling: the right distribution, the log-probabilities of what was drawn, the same tokens from both loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.models.load import TinyLlama, build
from alignfirst.lm.sampling.fast_llama import Stepper, fits
from alignfirst.lm.sampling.sample import sample
from alignfirst.lm.text.logprobs import token_logp

LOOPS = ("own", "generate")


def peaked(config: TinyLlama, seed: int = 0, scale: float = 8.0) -> Any:
    """Fresh weights give nearly uniform output; larger ones make every part of the model matter."""
    model = build(config, seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale) if p.ndim > 1 else p.add_(0.1 * torch.arange(len(p)) / len(p))
    return model


MODEL = TinyLlama(vocab=11, hidden=24, layers=2, heads=4, kv_heads=2, intermediate=40, positions=64)


@pytest.fixture(scope="module")
def model() -> Any:
    return peaked(MODEL)


def seeded(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def prompts(rows: int, length: int, vocab: int = 11) -> Any:
    return torch.randint(vocab, (rows, length), generator=seeded(99))


# -- the stepper against transformers ---------------------------------------------------------------------------------


@given(
    half=st.integers(1, 4),
    groups=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    tie=st.booleans(),
    rows=st.integers(1, 4),
    length=st.integers(1, 7),
)
@settings(max_examples=25)
def test_the_stepper_gives_the_models_own_logits(
    half: int, groups: int, kv_heads: int, layers: int, tie: bool, rows: int, length: int
) -> None:
    heads = groups * kv_heads
    model = peaked(TinyLlama(7, 2 * half * heads, layers, heads, kv_heads, 9, 16, tie)).double()
    tokens = prompts(rows, length, 7)
    step = Stepper(model, rows, length)
    with torch.no_grad():
        expected = model(tokens).logits
        for n in range(length):
            step.advance(tokens[:, n])
            # transformers' norms are float32 even in a float64 model: a rounding of 6e-8 of states of size 10
            assert torch.allclose(step.logits(), expected[:, n], rtol=0, atol=1e-5)
    assert expected.std() > 1e-2  # else nothing was compared


def test_models_that_the_stepper_does_not_know_are_left_to_generate() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    base = dict(vocab_size=11, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8)
    assert fits(LlamaForCausalLM(LlamaConfig(**base)))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    for change in (
        dict(attention_bias=True),
        dict(mlp_bias=True),
        dict(hidden_act="gelu"),
        dict(rope_parameters=scaled),
    ):
        assert not fits(LlamaForCausalLM(LlamaConfig(**base, **change))), change
    other = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=32, n_embd=8, n_layer=1, n_head=2)).eval()
    assert not fits(other)
    drawn = sample(other, prompts(3, 2), 4, seeded())
    scored = token_logp(other, torch.cat([prompts(3, 2), drawn.tokens], 1), 2)
    assert torch.allclose(scored, drawn.logp, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="own loop"):
        sample(other, prompts(3, 2), 4, seeded(), loop="own")


# -- both loops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("ends", [(), (3,), (3, 5)])
def test_both_loops_draw_the_same_tokens_from_the_same_seed(model: Any, temperature: float, ends: Any) -> None:
    own, gen = (sample(model, prompts(64, 3), 12, seeded(), temperature, ends, loop=x) for x in LOOPS)
    # the same uniform numbers: tokens differ only where one falls within rounding of a step of the distribution
    assert torch.equal(own.tokens, gen.tokens) and torch.equal(own.mask, gen.mask)
    assert torch.allclose(own.logp, gen.logp, rtol=0, atol=1e-4)
    if ends:
        assert 0.05 < own.mask.float().mean() < 0.95


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_drawn_tokens(model: Any, loop: Any, temperature: float) -> None:
    asked = prompts(32, 4)
    drawn = sample(model, asked, 10, seeded(), temperature, loop=loop)
    double = peaked(MODEL).double()
    with torch.no_grad():
        logits = double(torch.cat([asked, drawn.tokens], 1)).logits[:, 3:-1] / temperature
    expected = logits.log_softmax(-1).gather(-1, drawn.tokens[..., None])[..., 0]
    assert torch.allclose(drawn.logp.double(), expected, rtol=0, atol=1e-4)
    assert drawn.mask.all() and drawn.logp.dtype == torch.float32


@pytest.mark.parametrize("loop", LOOPS)
def test_after_the_end_token_nothing_counts(model: Any, loop: Any) -> None:
    drawn = sample(model, prompts(64, 2), 12, seeded(), ends=(3,), loop=loop)
    for tokens, logp, mask in zip(drawn.tokens, drawn.logp, drawn.mask, strict=True):
        ends = (tokens == 3).nonzero()
        length = int(ends[0]) + 1 if len(ends) else 12
        assert mask.tolist() == [True] * length + [False] * (12 - length)
        assert (tokens[length:] == 3).all() and (logp[length:] == 0).all() and (logp[:length] < 0).all()


@pytest.mark.parametrize("loop", LOOPS)
def test_when_every_row_ended_early_shapes_are_still_whole(loop: Any) -> None:
    model = build(MODEL, 0)
    with torch.no_grad():  # the head prefers token 3 whatever came before
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 1.0
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.model.embed_tokens.weight[3, 0] = 60.0
        drawn = sample(model, prompts(8, 2), 30, seeded(), ends=(3,), loop=loop)
    assert drawn.tokens.shape == drawn.logp.shape == drawn.mask.shape == (8, 30)
    assert not drawn.mask[:, 10:].any() and (drawn.tokens[:, 10:] == 3).all()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_seed_decides_and_halves_of_a_batch_draw_what_the_whole_draws(model: Any, loop: Any) -> None:
    asked, before = prompts(10, 2), torch.random.get_rng_state()
    whole = sample(model, asked, 8, seeded(), loop=loop)
    generator = seeded()
    halves = [sample(model, part, 8, generator, loop=loop) for part in (asked[:4], asked[4:])]
    assert torch.equal(whole.tokens, torch.cat([h.tokens for h in halves]))
    assert torch.equal(whole.tokens, sample(model, asked, 8, seeded(), loop=loop).tokens)
    assert not torch.equal(whole.tokens, sample(model, asked, 8, seeded(1), loop=loop).tokens)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("loop", LOOPS)
def test_the_generation_config_of_a_model_does_not_leak_in(model: Any, loop: Any) -> None:
    from transformers import GenerationConfig

    asked, plain = prompts(16, 2), sample(model, prompts(16, 2), 8, seeded(), loop=loop)
    before = model.generation_config
    try:
        model.generation_config = GenerationConfig(
            temperature=0.1, top_k=1, repetition_penalty=9.0, do_sample=True, eos_token_id=3, suppress_tokens=[1, 2]
        )
        kept = model.generation_config
        assert torch.equal(plain.tokens, sample(model, asked, 8, seeded(), loop=loop).tokens)
        assert model.generation_config is kept
    finally:
        model.generation_config = before


def chi_square(counts: Any, expected: Any) -> float:
    """p-value of counts against expected ones, cells below 5 pooled."""
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    small = max(int((expected < 5).sum()), 1)
    counts = np.concatenate([[counts[:small].sum()], counts[small:]])
    expected = np.concatenate([[expected[:small].sum()], expected[small:]])
    assert expected.min() >= 5 and len(counts) > 20
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))


def exact_sequences(model: Any, prompt: Any, length: int, vocab: int, temperature: float) -> Any:
    """Probability of every sequence, by enumeration in float64."""
    every = torch.tensor(list(itertools.product(range(vocab), repeat=length)))
    tokens = torch.cat([prompt.expand(len(every), -1), every], 1)
    with torch.no_grad():
        logits = model.double()(tokens).logits[:, prompt.shape[1] - 1 : -1] / temperature
    model.float()
    return logits.log_softmax(-1).gather(-1, every[..., None])[..., 0].sum(1).exp().numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_exact_distribution_as_those_of_plain_generate_do(temperature: float) -> None:
    """All 4^4 sequences enumerated. A p-value below 1e-6 would be one in a million were the sampler right."""
    config = TinyLlama(vocab=4, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=24, positions=16)
    model, n = peaked(config, seed=1, scale=6.0), 20_000
    prompt = torch.tensor([[1, 2]])
    exact = exact_sequences(model, prompt, 4, 4, temperature)
    assert exact.max() / exact.min() > 20  # far from uniform
    places = 4 ** torch.arange(3, -1, -1)

    def counted(tokens: Any) -> Any:
        return np.bincount((tokens * places).sum(1).numpy(), minlength=4**4)

    asked = prompt.expand(n, -1)
    own = counted(sample(model, asked, 4, seeded(), temperature, loop="own").tokens)
    via = counted(sample(model, asked, 4, seeded(1), temperature, loop="generate").tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        plain = model.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=4,
            do_sample=True,
            top_k=0,
            temperature=temperature,
            pad_token_id=0,
        )
    for counts in (own, via, counted(plain[:, 2:])):
        assert chi_square(counts, n * exact) > 1e-6
    # the test can fail: draws at another temperature are told apart
    wrong = counted(sample(model, asked, 4, seeded(3), temperature * 1.2, loop="own").tokens)
    assert chi_square(wrong, n * exact) < 1e-6


def test_a_large_vocabulary_is_drawn_from_without_bias() -> None:
    """Uniform numbers just behind known steps of the distribution: a sum in float32 would miss them by many tokens."""
    from alignfirst.lm.sampling.sample import _Draw

    logits = torch.zeros(30_000)
    logits[20_000:] = np.log(2.0)  # 20,000 tokens of 1/40,000 each, then 10,000 of twice that
    steps = torch.arange(50, 30_000, 150)
    mass = torch.where(steps <= 20_000, steps, 2 * steps - 20_000).double() / 40_000  # before each of them
    draw = _Draw((mass + 1e-4 / 40_000)[None], 1.0)
    assert torch.equal(draw.draw(logits.expand(len(steps), -1)), steps)
    expected = torch.where(steps < 20_000, 1, 2).double() / 40_000
    # float32 rounds log 2 by 2e-8
    assert torch.allclose(draw.samples([]).logp[:, 0].double(), expected.log(), rtol=0, atol=2e-6)


def test_impossible_tokens_are_never_drawn() -> None:
    from alignfirst.lm.sampling.sample import _Draw

    logits = torch.full((1, 6), -torch.inf)
    logits[0, 2], logits[0, 4] = 0.0, 1.0
    edges = torch.tensor([0.0, 1 - 2**-53, 0.5, 1 / (1 + np.e), 2**-60], dtype=torch.float64)
    chosen = _Draw(edges[None], 1.0).draw(logits.expand(5, -1))
    assert set(chosen.tolist()) <= {2, 4} and chosen[0] == 2 and chosen[1] == 4


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"new_tokens": 0},
        {"new_tokens": 64},
        {"prompts": torch.zeros(2, 0, dtype=torch.long)},
        {"prompts": torch.zeros(0, 2, dtype=torch.long)},
        {"prompts": torch.zeros(2, dtype=torch.long)},
        {"prompts": torch.zeros(2, 2)},
    ],
)
def test_impossible_requests_are_refused(model: Any, change: dict[str, Any]) -> None:
    request = {"prompts": prompts(2, 2), "new_tokens": 3, "generator": seeded()} | change
    with pytest.raises(InputError):
        sample(model, **request)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_diverged_model_fails_its_cell(loop: Any) -> None:
    model = build(MODEL, 0)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(StageFailure, match="not finite"):
        sample(model, prompts(2, 2), 3, seeded(), loop=loop)


def test_training_mode_is_given_back(model: Any) -> None:
    model.train()
    sample(model, prompts(2, 2), 3, seeded())
    assert model.training
    model.eval()
