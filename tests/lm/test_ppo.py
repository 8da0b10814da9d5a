"""PPO's critic against what it should have learned."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignfirst.errors import InputError
from alignfirst.lm.align.rollouts import Baseline, Session, draw_rewarded
from alignfirst.lm.align.trainer import AlignSettings, Task, align
from alignfirst.lm.align.value import Critic, ValueSettings, explained, states_of, sums
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import response_logp, score_batch
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE

V, L = 4, 4
MODEL = build(TinyLlama(V, 32, 1, 2, 2, 64, 8), 0)
with torch.no_grad():
    for _p in MODEL.parameters():
        if _p.ndim > 1:
            _p.mul_(8)
FROZEN = copy.deepcopy(MODEL)


def reward(batch: Batch) -> np.ndarray:
    """Known more and more exactly as a response unfolds."""
    return (batch.responses == 3).float().sum(1).numpy()


def test_the_critic_finds_a_linear_function():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(500, 6)), rng.normal(size=6)
    critic = Critic(ValueSettings(ridge=1e-9))
    assert (critic.predict(x) == 0).all()
    critic.learn(*sums(x, x @ w + 0.7))
    np.testing.assert_allclose(critic.predict(x), x @ w + 0.7, atol=1e-5)


def test_the_constant_is_not_shrunk():
    x = np.random.default_rng(0).normal(size=(200, 3))
    x -= x.mean(0)
    critic = Critic(ValueSettings(ridge=1e6))
    critic.learn(*sums(x, np.full(200, 5.0)))
    np.testing.assert_allclose(critic.predict(x), 5.0, rtol=1e-6)


def test_old_batches_fade():
    x = np.zeros((10, 2))
    critic = Critic(ValueSettings(memory=0.5))
    critic.learn(*sums(x, np.zeros(10)))
    critic.learn(*sums(x, np.ones(10)))
    np.testing.assert_allclose(critic.predict(x[:1]), 1 / 1.5, rtol=1e-9)


def test_parts_of_a_batch_add_up():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    for whole, a, b in zip(sums(x, y), sums(x[:8], y[:8]), sums(x[8:], y[8:]), strict=True):
        np.testing.assert_allclose(whole, a + b)


def test_explained_variance():
    y = np.array([0.0, 1.0, 2.0, 3.0])
    assert explained(y, y) == 1
    assert explained(y, np.zeros(4)) == 0
    assert explained(np.ones(4), y) is None


@pytest.mark.parametrize("bad", [{"ridge": 0.0}, {"memory": 1.0}, {"memory": -0.1}])
def test_impossible_critics_are_refused(bad):
    with pytest.raises(InputError):
        ValueSettings(**bad)


def session(prompts: Prompts, level: str) -> Session:
    settings = AlignSettings("ppo", 0.3, OptimSettings(1e-3), samples=1024, level=level)
    return Session(MODEL, FROZEN, Task(prompts, reward), settings, 0, ALONE)


def exact_values(prompt: int) -> dict[tuple[int, ...], float]:
    """E[R | what has been said] under the model, by counting all 256 responses."""
    every = torch.tensor(list(itertools.product(range(V), repeat=L)))
    batch = Batch.of(torch.tensor([[prompt]]).expand(len(every), 1), every)
    p, r = np.exp(score_batch(MODEL, batch).sum(1)), reward(batch)
    words = every.numpy()
    values = {}
    for t in range(L):
        for said in itertools.product(range(V), repeat=t):
            here = (words[:, :t] == said).all(1)
            values[said] = float((p * r)[here].sum() / p[here].sum())
    return values


def test_values_of_states_approach_the_exact_ones():
    """With returns R (the KL to an equal reference is 0). How near is a matter of 34 features."""
    s = session(Prompts([torch.tensor([0])], L), "token")
    baseline, exact = Baseline(s), exact_values(0)
    for place in range(5):
        drawn = draw_rewarded(s, MODEL, "rollouts", place, np.zeros(1024, int), 1024)
        values = baseline(drawn, drawn.rollouts.returns(0.3, "token"))  # [L, N], from earlier draws only
    words = drawn.batches[0].responses.numpy()
    truth = np.array([[exact[tuple(row[:t])] for row in words] for t in range(L)])
    returns = np.broadcast_to(drawn.rollouts.reward, truth.shape)
    best = explained(returns, truth)
    assert explained(truth, values) > 0.95
    assert baseline.explains == pytest.approx(best, abs=0.05)
    assert best > 0.3


def test_values_of_prompts_tell_prompts_apart():
    prompts = Prompts([torch.tensor([i]) for i in range(V)], L)
    s = session(prompts, "sequence")
    baseline = Baseline(s)
    which = np.arange(1024) % V
    for place in range(6):
        drawn = draw_rewarded(s, MODEL, "rollouts", place, which, 1024)
        values = baseline(drawn, drawn.rollouts.returns(0.3, "sequence"))[0]
    for prompt in range(V):
        of_prompt = drawn.rollouts.reward[which == prompt]
        error = of_prompt.std() / np.sqrt(len(of_prompt))
        assert values[which == prompt].std() < 1e-9
        assert values[prompt] == pytest.approx(exact_values(prompt)[()], abs=5 * error)


def test_a_baseline_leaves_the_expected_gradient_as_it_is():
    """E[V(s) grad log pi(a | s)] = 0, however wrong V is: over 40 batches, within 5 standard errors."""
    s = session(Prompts([torch.tensor([0])], L), "token")
    vector = np.random.default_rng(0).normal(size=(34,))
    slopes = []
    weight = MODEL.lm_head.weight
    for place in range(40):
        drawn = draw_rewarded(s, MODEL, "rollouts", place, np.zeros(128, int), 128)
        batch = drawn.batches[0]
        wrong = states_of(MODEL, batch, L) @ vector  # [L, N]
        total = (torch.tensor(wrong.T, dtype=torch.float32) * response_logp(MODEL, batch)).sum() / 128
        (g,) = torch.autograd.grad(total, [weight])
        slopes.append(g.flatten().numpy())
    slopes = np.array(slopes)
    t = slopes.mean(0) / (slopes.std(0, ddof=1) / np.sqrt(len(slopes)) + 1e-9)
    assert np.abs(t).max() < 5


def test_the_curve_shows_what_the_critic_explains():
    settings = AlignSettings("ppo", 0.3, OptimSettings(1e-4), updates=8, samples=256, level="token")
    result = align(copy.deepcopy(MODEL), FROZEN, Task(Prompts([torch.tensor([0])], L), reward), settings, 0)
    curve = result.curves["value_explains"]
    assert [v is None for v in curve] == [False, True, True, True, False, True, True, True]
    assert curve[0] == 0 and curve[4] > 0.2
