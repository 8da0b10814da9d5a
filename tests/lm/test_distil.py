"""Distillation: its losses against the formulas, its ends against the teacher, its budget."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

import alignfirst.lm.distil.teacher as teacher_module
from alignfirst.errors import InputError
from alignfirst.lm.distil.distillation import METHODS, Distillation, DistilSettings, distil
from alignfirst.lm.distil.teacher import bucketed, forward_kl, outputs_of, remember, reverse_kl
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import next_token_logp, score_batch
from alignfirst.lm.training.optim import Optimiser, OptimSettings, rate
from alignfirst.lm.training.sft import sft
from alignfirst.theory import divergences as theory

V, NEW = 12, 4
PROMPTS = Prompts([torch.tensor([0]), torch.tensor([1, 2])], NEW)
ROWS = Batch.of_rows([([0], [3, 4, 5, 6]), ([1, 2], [7, 8]), ([0], [9]), ([1, 2], [3, 3, 3, 3])])


def model(seed: int, spread: float = 6.0):
    made = build(TinyLlama(V, 16, 1, 2, 2, 32, 12), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(spread)
    return made


TEACHER, STUDENT = model(1), model(2)


def settings(method: str, **changed) -> DistilSettings:
    usual = {"samples": 64, "updates": 4, "batch": 16, "temperature": 0.8}
    return DistilSettings(method, OptimSettings(1e-3), **usual | changed)


def run(method: str, seed: int = 0, rehearsal=None, **changed):
    student = copy.deepcopy(STUDENT)
    result = distil(TEACHER, student, PROMPTS, settings(method, **changed), seed, rehearsal)
    return torch.cat([p.detach().flatten() for p in student.parameters()]), result


# -- losses ---------------------------------------------------------------------------------------------------------


def test_next_token_distributions_are_those_of_the_tokens_that_came():
    for batch in (ROWS, Batch.of(torch.tensor([[0], [3]]), torch.tensor([[1, 2], [4, 5]]))):
        logp = next_token_logp(TEACHER, batch).detach()
        np.testing.assert_allclose(logp.exp().sum(-1), 1, rtol=1e-5)
        of_tokens = logp.gather(-1, batch.responses[..., None])[..., 0]
        own = batch.mask.numpy()
        np.testing.assert_allclose(of_tokens.numpy()[own], score_batch(TEACHER, batch)[own], atol=1e-5)


def test_temperature_is_sharpening():
    plain = next_token_logp(TEACHER, ROWS).detach().double().numpy()
    sharp = outputs_of(TEACHER, ROWS, 0.5, None).logp.double().numpy()
    np.testing.assert_allclose(sharp, theory.sharpen(plain, 2.0), atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, V - 1, V, V + 5])
def test_divergences_are_the_formulas(k):
    outputs = outputs_of(TEACHER, ROWS, 0.8, k)
    student = next_token_logp(STUDENT, ROWS).detach()
    t, s = (x.double().numpy() for x in (next_token_logp(TEACHER, ROWS, 0.8).detach(), student))
    ours = forward_kl(outputs.logp, outputs.of_student(student)).double().numpy()
    np.testing.assert_allclose(ours, theory.topk_forward_kl(t, s, min(k, V)), atol=1e-5)
    if k >= V:
        back = reverse_kl(outputs.logp, outputs.of_student(student)).double().numpy()
        np.testing.assert_allclose(back, theory.reverse_kl(t, s), atol=1e-5)


def test_buckets_hold_all_mass_also_where_the_tail_is_tiny():
    logits = torch.tensor([[[30.0, 1.0, 0.5, -2.0]]])
    logp = logits.log_softmax(-1)
    buckets = bucketed(logp, torch.tensor([[[0]]]))
    expected = torch.logsumexp(logits[..., 1:], -1) - torch.logsumexp(logits, -1)  # 1 - p would be 0
    assert buckets[0, 0, 1] == pytest.approx(float(expected), rel=1e-5)


def gradient(student) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in student.parameters()])


@pytest.mark.parametrize("method", ["forward-kl", "reverse-kl"])
@pytest.mark.parametrize("chunk", [None, 3])
def test_the_gradient_is_that_of_the_mean_divergence(method, chunk):
    """The remembered teacher gives what a fresh one would; chunks add up."""
    d = Distillation(TEACHER, copy.deepcopy(STUDENT), PROMPTS, settings(method, chunk=chunk), 0, None)
    steps = METHODS[method](d)
    rows = np.arange(10)
    batch = steps.responses(0, rows)
    n = int(batch.mask.sum())
    loss = steps.learn(batch, rows, n)
    ours = gradient(d.student)
    d.student.zero_grad()
    t, s = next_token_logp(TEACHER, batch, 0.8).detach(), next_token_logp(d.student, batch)
    kl = (t.exp() * (t - s)) if method == "forward-kl" else (s.exp() * (s - t))
    expected = (kl.sum(-1) * batch.mask).sum() / n
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert (ours - gradient(d.student)).abs().max() < 1e-5 * ours.abs().max()


# -- ends -----------------------------------------------------------------------------------------------------------


def kl_to_teacher(student, temperature: float) -> float:
    """KL(sharpened teacher || student) a response, from 2,000 of the teacher's."""
    which = np.arange(2000) % 2
    drawn = draw_answers(TEACHER, PROMPTS, which, torch.Generator().manual_seed(5), temperature)
    batch, logp = drawn.batch, drawn.logp
    return float((logp - score_batch(student, batch)).sum(1).mean())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_approaches_the_sharpened_teacher(method):
    student = build(TinyLlama(V, 32, 1, 2, 2, 64, 12), 3)
    s = DistilSettings(method, OptimSettings(1e-2, decay=0.3), 0.5, 8192, 250, 128)
    before = kl_to_teacher(student, 0.5)
    result = distil(TEACHER, student, PROMPTS, s, 0)
    after = kl_to_teacher(student, 0.5)
    assert before > 1
    # 8,192 samples tell only so much of two prompts' answers, 2 x 12^4 of them; the KLs see every next token
    assert after < {"sequence": 0.06, "forward-kl": 0.002, "reverse-kl": 0.002}[method] * before
    assert after < kl_to_teacher(student, 1.0)  # it is the sharpened teacher that was learned
    assert result.curves["loss"][-1] < result.curves["loss"][0]


# -- budget, determinism, rehearsal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_student(method):
    first, result = run(method)
    assert torch.equal(first, run(method)[0])
    assert not torch.equal(first, run(method, seed=1)[0])
    assert not torch.equal(first, run(method, occurrence=1)[0])
    assert set(result.curves) == {"loss", method, "grad_norm"}


def test_all_methods_have_one_budget():
    results = {method: run(method)[1] for method in METHODS}
    assert {(r.updates, r.samples) for r in results.values()} == {(4, 64)}
    trained = {r.tokens["trained"] for r in results.values()}
    assert max(trained) <= 1.1 * min(trained)  # padding differs with the prompts of a batch
    assert results["sequence"].tokens["scored"] == 0 < results["forward-kl"].tokens["scored"]


def test_sequence_and_forward_kl_learn_from_the_same_text():
    texts = [
        METHODS[m](Distillation(TEACHER, STUDENT, PROMPTS, settings(m), 0, None)).text
        for m in METHODS
        if m != "reverse-kl"
    ]
    assert torch.equal(texts[0].tokens, texts[1].tokens)


@pytest.mark.parametrize("method", METHODS)
def test_rehearsal_takes_its_share_of_every_epoch(method):
    again = Batch.of_rows([([0], [11, 11, 11, 11])] * 16)
    _, result = run(method, rehearsal=again)  # a quarter of 64; 4 updates of 16 are one epoch
    assert set(result.curves) == {"loss", method, "rehearsal", "grad_norm"}
    terms = [[v or 0 for v in result.curves[name]] for name in (method, "rehearsal")]
    np.testing.assert_allclose(np.sum(terms, axis=0), result.curves["loss"])
    student = copy.deepcopy(STUDENT)
    before = score_batch(student, again).sum(1)[0]
    distil(TEACHER, student, PROMPTS, settings(method, updates=40), 0, again)
    assert score_batch(student, again).sum(1)[0] > before + 1


def test_remembered_outputs_must_fit(monkeypatch):
    remember(TEACHER, ROWS, 0.8, None, 2)
    monkeypatch.setattr(teacher_module, "MEMORY_LIMIT", 100)
    with pytest.raises(InputError, match="top_k"):
        remember(TEACHER, ROWS, 0.8, None, 2)


def test_remembering_in_parts_changes_nothing():
    for k in (None, 3):
        whole, parts = remember(TEACHER, ROWS, 0.8, k, 4), remember(TEACHER, ROWS, 0.8, k, 1)
        np.testing.assert_allclose(whole.logp, parts.logp, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [{"method": "magic"}, {"temperature": 0.0}, {"updates": 0}, {"top_k": 0}, {"method": "sequence", "top_k": 3}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(InputError):
        settings(**{"method": "forward-kl"} | bad)


def test_rehearsal_must_leave_room():
    with pytest.raises(InputError, match="leave room"):
        run("sequence", rehearsal=Batch.of_rows([([0], [1])] * 64))


# -- maximum likelihood and the optimiser ---------------------------------------------------------------------------


def test_fitting_reaches_the_frequencies():
    student = build(TinyLlama(V, 16, 1, 2, 2, 32, 12), 4)
    counts = np.array([5, 3, 2])
    batch = Batch.of_rows([([0], [i + 1]) for i, n in enumerate(counts) for _ in range(n)])
    result = sft(student, [batch] * 200, 200, OptimSettings(1e-2, decay=0.5))
    p = counts / counts.sum()
    assert result.curves["loss"][-1] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-3)
    assert (result.updates, result.samples) == (200, 2000)


def test_fitting_in_chunks_is_fitting():
    a, b = copy.deepcopy(STUDENT), copy.deepcopy(STUDENT)
    losses = [sft(m, [ROWS] * 3, 3, OptimSettings(1e-3), chunk=c).curves["loss"] for m, c in ((a, None), (b, 1))]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_fitting_says_when_data_run_out():
    with pytest.raises(InputError, match="a batch for every update, got 2"):
        sft(copy.deepcopy(STUDENT), [ROWS] * 2, 5, OptimSettings(1e-3))


def test_the_rate_rises_stays_and_falls():
    s = OptimSettings(1.0, warmup=0.2, decay=0.3)
    rates = [rate(s, i, 10) for i in range(10)]
    np.testing.assert_allclose(rates, [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [rate(OptimSettings(2.0), i, 3) for i in range(3)] == [2.0, 2.0, 2.0]


def test_a_step_is_adamws():
    """Loshchilov & Hutter 2019, by hand: first step lr * sign(g), decoupled decay lr * wd * w; gradient clipped."""
    w = torch.nn.Parameter(torch.tensor([2.0, -1.0]))
    o = Optimiser([w], OptimSettings(0.1, weight_decay=0.5, clip_norm=1.0), 10)
    (3 * w[0] - 4 * w[1]).backward()
    assert o.step() == pytest.approx(5.0)  # before clipping
    np.testing.assert_allclose(w.detach(), [2.0 - 0.1 * 0.5 * 2.0 - 0.1, -1.0 + 0.1 * 0.5 + 0.1], rtol=1e-6)
    assert w.grad is None


@pytest.mark.parametrize(
    "bad", [{"learning_rate": 0.0}, {"learning_rate": np.nan}, {"warmup": 0.6, "decay": 0.6}, {"clip_norm": 0.0}]
)
def test_impossible_optimisers_are_refused(bad):
    with pytest.raises(InputError):
        OptimSettings(**{"learning_rate": 1e-3} | bad)
