"""The training loop: what it draws, counts, refuses and repeats."""

from __future__ import annotations

import copy
from itertools import islice

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from scipy.special import expit

from alignfirst.data.rows import TokenRow
from alignfirst.errors import StageFailure
from alignfirst.lm.align.batches import FromPolicy
from alignfirst.lm.align.coefficients import Rollouts, RolloutWork
from alignfirst.lm.align.pair_batches import PairWork
from alignfirst.lm.align.rollouts import Session, draw_pairs, pair_rows
from alignfirst.lm.align.trainer import AlignSettings, Labels, Pairs, Task, align, ascend
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import response_logp, score_batch
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE
from alignfirst.theory.objectives import ALGORITHMS, CLIP

V, NEW = 10, 5
ONE = Prompts([torch.tensor([0])], NEW)
SEVERAL = Prompts([torch.tensor([0]), torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])], NEW)


def model(seed: int, spread: float = 5.0):
    made = build(TinyLlama(V, 16, 1, 2, 2, 32, 12), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(spread)
    return made


POLICY, REFERENCE = model(1), model(2)


def reward(batch: Batch) -> np.ndarray:
    return np.where(batch.mask.numpy(), batch.responses.numpy() < 3, 0).sum(1) / NEW


def settings(name: str, **changed) -> AlignSettings:
    beta = changed.pop("beta", 0.2 if ALGORITHMS[name].uses_beta else 0.0)
    usual = {"updates": 3, "samples": 16, "group_size": 4, "stored_pairs": 24, "epochs": 2}
    return AlignSettings(name, beta, OptimSettings(1e-3), **usual | changed)


def run(name: str, seed: int = 0, task: Task | None = None, log=None, **changed):
    policy = copy.deepcopy(POLICY)
    result = align(policy, REFERENCE, task or Task(ONE, reward), settings(name, **changed), seed, log)
    return torch.cat([p.detach().flatten() for p in policy.parameters()]), result


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name, level):
    first, result = run(name, level=level)
    again, _ = run(name, level=level)
    other, _ = run(name, seed=1, level=level)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()
    assert {len(curve) for curve in result.curves.values()} == {3}


def test_a_second_align_stage_draws_other_noise():
    assert not torch.equal(run("rloo")[0], run("rloo", occurrence=1)[0])


def test_cells_that_differ_in_beta_share_their_first_rollouts():
    (a, b) = (run("rloo", log=None, updates=1)[1], run("grpo", updates=1)[1])
    assert a.curves["reward"] == b.curves["reward"]
    assert a.curves["entropy"] == b.curves["entropy"]


def test_the_reference_and_the_callers_generators_stay_as_they_were():
    before = [p.clone() for p in REFERENCE.parameters()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run("ppo", level="token")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, REFERENCE.parameters(), strict=True))


# -- coefficients times grad log pi is the gradient of the published loss ---------------------------------------------


def drawn_work(name: str, level: str, beta_in_loss: float = 0.0, rows: slice = slice(0, 16)) -> RolloutWork:
    """Rollouts of a policy that has moved since: ratios are not 1, and some are clipped."""
    drawn = draw_answers(POLICY, ONE, np.zeros(16, int), torch.Generator().manual_seed(0))
    batch, logp = drawn.batch, drawn.logp
    old = logp + np.random.default_rng(0).normal(0, 0.3, logp.shape)
    r = Rollouts(reward(batch) + batch.responses[:, 0].numpy(), old, score_batch(REFERENCE, batch), batch.mask.numpy())
    shaped = r.returns(0.2, level)
    used = settings(name, beta=beta_in_loss, level=level, kl_in="loss")
    return RolloutWork(used, r, shaped, batch.rows(rows), rows)


def gradient_of(loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(LIVE.parameters()))])


LIVE = copy.deepcopy(POLICY)


def ours(work) -> tuple[torch.Tensor, float]:
    LIVE.zero_grad()
    notes = ascend(LIVE, work)
    gradient = torch.cat([p.grad.flatten() for p in LIVE.parameters()])
    LIVE.zero_grad()
    return gradient, float(notes["loss"].mean())


def assert_equal(a: torch.Tensor, b: torch.Tensor) -> None:
    assert b.abs().max() > 1e-3
    assert (a - b).abs().max() < 1e-5 * b.abs().max()  # float32


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_ppos_gradient_is_that_of_the_clipped_surrogate(level):
    work = drawn_work("ppo", level)
    logp, old = response_logp(LIVE, work.batch), torch.tensor(work.rollouts.logp)
    ratio = (logp - old).exp() if level == "token" else (logp - old).sum(1, keepdim=True).exp()
    a = torch.tensor(work.shaped.T.copy())
    a = (a - a.mean()) / (a.std(correction=0) + 1e-8)
    surrogate = torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a)
    moved = (ratio - 1).abs() > CLIP
    assert 0.1 < moved.float().mean() < 0.9
    assert_equal(ours(work)[0], gradient_of(-surrogate.sum(1).mean()))


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_kl_in_the_loss_has_its_published_gradient(level):
    work = drawn_work("reinforce", level, beta_in_loss=0.7)
    logp, ref = response_logp(LIVE, work.batch), torch.tensor(work.rollouts.logp_ref)
    old, shaped = torch.tensor(work.rollouts.logp), torch.tensor(work.shaped.T.copy())
    if level == "sequence":
        logp, ref, old = (x.sum(1, keepdim=True) for x in (logp, ref, old))
    d = logp - ref
    kl = (logp - old).exp() * ((-d).exp() + d - 1)
    policy = -(shaped - shaped.mean(0)) * logp
    gradient, loss = ours(work)
    assert_equal(gradient, gradient_of((policy + 0.7 * kl).sum(1).mean()))
    assert loss == pytest.approx(float((0.7 * kl).sum(1).mean().detach()), rel=1e-5)  # advantages have mean 0


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo", "ppo", "best-of-n"])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_chunks_add_up_to_the_whole(name, level):
    whole = ours(drawn_work(name, level))[0]
    parts = [ours(drawn_work(name, level, rows=slice(a, a + 4)))[0] for a in range(0, 16, 4)]
    assert_equal(sum(parts), whole)


@pytest.mark.parametrize("name", ["dpo-offline", "ipo", "sft-preferred"])
def test_pairs_have_the_gradient_of_their_loss_whole_or_in_chunks(name):
    """With responses that stand in several pairs, weights, and either member as the winner."""
    rng = np.random.default_rng(0)
    pool = draw_answers(POLICY, ONE, np.zeros(6, int), torch.Generator().manual_seed(0)).batch
    first, second = rng.integers(6, size=12), rng.integers(6, size=12)
    weight = rng.random(12) + 0.5
    wins, ref = rng.random(12) < 0.5, score_batch(REFERENCE, pool).sum(1)
    pairs = Pairs(pool, first, second, wins, weight=weight / weight.mean(), logp_ref=ref)
    b = 0.3
    logp = response_logp(LIVE, pool).sum(1)
    w, l_ = np.where(wins, first, second), np.where(wins, second, first)
    m = (logp[w] - logp[l_]) - torch.tensor(ref[w] - ref[l_])
    losses = {"dpo-offline": -(b * m).sigmoid().log(), "ipo": (m - 1 / (2 * b)) ** 2, "sft-preferred": -logp[w]}
    expected = (losses[name] * torch.tensor(pairs.weight)).mean()

    def work(picks):
        return PairWork.of(ALGORITHMS[name], b, 12, pairs, picks)

    gradient, loss = ours(work(np.arange(12)))
    assert_equal(gradient, gradient_of(expected))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_equal(sum(ours(work(np.arange(a, a + 3)))[0] for a in range(0, 12, 3)), gradient)


def test_equal_answers_pull_nowhere():
    pool = Batch.of_rows([([0], [1, 2])])
    pairs = Pairs(pool, np.array([0]), np.array([0]), np.array([True]), logp_ref=np.zeros(1))
    work = PairWork.of(ALGORITHMS["dpo-offline"], 0.5, 1, pairs, np.array([0]))
    assert ours(work)[0].abs().max() == 0


# -- prompts, groups, ends ------------------------------------------------------------------------------------------


def session(name: str = "rloo", prompts: Prompts = SEVERAL, **changed) -> Session:
    return Session(copy.deepcopy(POLICY), REFERENCE, Task(prompts, reward), settings(name, **changed), 0, ALONE)


def test_groups_share_a_prompt_and_prompts_take_turns():
    source, seen = FromPolicy(session(samples=24)), []
    for item in islice(source.items(), 3):
        (work,) = source.read(item).work
        asked = [tuple(work.batch.text_ids(row)[0]) for row in range(24)]
        groups = [asked[a : a + 4] for a in range(0, 24, 4)]
        assert all(len(set(g)) == 1 for g in groups)
        seen += [g[0] for g in groups]
    assert {prompt: seen.count(prompt) for prompt in set(seen)} == {(0,): 6, (1, 2, 3): 6, (4, 5, 6): 6}


def test_answers_to_prompts_of_different_lengths_are_scored_as_alone():
    drawn = draw_answers(POLICY, SEVERAL, np.array([1, 0, 2, 0, 1]), torch.Generator().manual_seed(0))
    batch, logp = drawn.batch, drawn.logp
    assert batch.start.tolist() == [3, 1, 3, 1, 3]
    np.testing.assert_allclose(score_batch(POLICY, batch), logp, atol=1e-5)
    for row in range(5):
        prompt, answer = batch.text_ids(row)
        np.testing.assert_allclose(score_batch(POLICY, Batch.of_rows([(prompt, answer)]))[0], logp[row], atol=1e-5)


def test_what_follows_the_end_counts_nothing():
    drawn = draw_answers(POLICY, Prompts(ONE.rows, NEW, ends=(2,)), np.zeros(64, int), torch.Generator().manual_seed(0))
    batch, logp = drawn.batch, drawn.logp
    assert 0 < (batch.lengths < NEW).sum() < 64
    assert (logp[~batch.mask.numpy()] == 0).all()
    r = Rollouts(np.zeros(64), logp, logp - 1.0 * batch.mask.numpy(), batch.mask.numpy())
    np.testing.assert_allclose(r.returns(1.0, "sequence")[0], -batch.lengths.numpy())
    to_go = r.returns(1.0, "token")  # [L, N]
    np.testing.assert_allclose(to_go[1], -np.maximum(batch.lengths.numpy() - 1, 0))
    policy = copy.deepcopy(POLICY)
    for name in ("grpo", "ppo", "dpo-online"):
        task = Task(Prompts(ONE.rows, NEW, ends=(2,)), reward)
        result = align(policy, REFERENCE, task, settings(name, level="token"), 0)
        assert all(np.isfinite(v) for v in result.curves["grad_norm"])


def test_pairs_keep_together_in_chunks():
    prompts, first, second = pair_rows(np.array([5, 6, 7, 8, 9]), 4)
    assert prompts.tolist() == [5, 6, 5, 6, 7, 8, 7, 8, 9, 9]
    assert (prompts[first] == prompts[second]).all()
    assert sorted([*first, *second]) == list(range(10))
    assert (first // 4 == second // 4).all()


# -- stored pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0.0, 0.3])
def test_stored_pairs_are_labelled_by_bradley_terry(flip):
    s = session("dpo-offline", prompts=ONE, stored_pairs=4000, labels=Labels(scale=4.0, flip=flip))
    pairs = draw_pairs(s)
    r = reward(pairs.pool)
    p = flip + (1 - 2 * flip) * expit(4.0 * (r[pairs.first] - r[pairs.second]))
    surprise = (pairs.first_wins - p).sum() / np.sqrt((p * (1 - p)).sum())
    leaning = ((pairs.first_wins - p) * (p - 0.5)).sum() / np.sqrt((p * (1 - p) * (p - 0.5) ** 2).sum())
    assert abs(surprise) < 5 and abs(leaning) < 5  # standard errors
    assert p.std() > 0.05  # there is something to tell
    np.testing.assert_allclose(pairs.logp_ref, score_batch(REFERENCE, pairs.pool).sum(1), atol=1e-4)


def test_hard_labels_take_the_larger_reward():
    labels = Labels("hard", flip=0.1)
    np.testing.assert_allclose(labels.probability(np.array([2.0, 1.0]), np.array([1.0, 2.0])), [0.9, 0.1])


def test_offline_pairs_are_drawn_once_and_used_equally():
    calls = []

    def counting(batch: Batch) -> np.ndarray:
        calls.append(len(batch))
        return reward(batch)

    _, result = run("dpo-offline", task=Task(ONE, counting), updates=6, samples=16, stored_pairs=24)
    assert sum(calls) == result.samples == 48  # 6 updates of 8 pairs: every pair twice
    assert "reward" not in result.curves


def test_pairs_can_come_from_another_model_than_the_reference():
    s = session("dpo-offline", prompts=ONE, stored_pairs=300)
    s.task = Task(ONE, reward, pair_source=POLICY)
    pairs = draw_pairs(s)
    np.testing.assert_allclose(pairs.logp_ref, score_batch(REFERENCE, pairs.pool).sum(1), atol=1e-4)
    assert score_batch(POLICY, pairs.pool).sum(1).mean() > score_batch(REFERENCE, pairs.pool).sum(1).mean()


def test_probes_show_curves_and_change_nothing():
    plain, _ = run("dpo-offline", updates=4)
    probed, result = run("dpo-offline", updates=4, probe_every=2)
    assert torch.equal(plain, probed)
    assert [v is None for v in result.curves["reward"]] == [False, True, False, True]
    assert result.samples == 48


# -- counts and curves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "samples"), [("grpo", 48), ("ppo", 32), ("dpo-online", 48), ("dpo-offline", 48)])
def test_target_draws_are_counted(name, samples):
    seen = []

    def is_target(batch: Batch) -> np.ndarray:
        hit = batch.responses[:, 0].numpy() < 5
        seen.append(hit.sum())
        return hit

    _, result = run(name, task=Task(ONE, reward, is_target))
    assert result.samples == samples  # PPO: 3 updates are two batches of 16
    assert result.target_draws == sum(seen) > 0


def test_curves_are_of_the_policy_before_each_update():
    logged = []
    _, result = run("reinforce", log=lambda update, values: logged.append((update, values["reward"])))
    drawn = draw_answers(POLICY, ONE, np.zeros(4000, int), torch.Generator().manual_seed(9))
    batch, logp = drawn.batch, drawn.logp
    kl = (logp - score_batch(REFERENCE, batch)).sum(1)
    assert [u for u, _ in logged] == [0, 1, 2]
    assert [r for _, r in logged] == result.curves["reward"]
    assert result.curves["kl"][0] == pytest.approx(kl.mean(), abs=5 * kl.std() / 4)
    assert result.curves["entropy"][0] == pytest.approx(-logp.sum(1).mean(), abs=5 * logp.sum(1).std() / 4)


def test_costs_are_counted():
    _, result = run("reinforce")
    width = 1 + NEW
    assert result.tokens == {"sampled": 48 * width, "scored": 48 * width, "trained": 48 * width}
    # 2 operations a weight and token forward and 4 back, attention over the square of the NEW tokens that are read in
    # each of its two products, the head where a token is predicted; drawing feeds every token once
    c = POLICY.config
    head, layers, wide = c.vocab_size * c.hidden_size, c.num_hidden_layers, c.num_attention_heads * c.head_dim
    body = sum(p.numel() for p in POLICY.parameters() if p.ndim > 1) - head
    scored = 2 * body * NEW + 4 * layers * wide * NEW**2 + 2 * head * NEW
    read = 1 + (NEW - 1) * (1 + NEW / 2)
    drawn = 2 * body * NEW + 4 * layers * wide * read + 2 * head * NEW
    assert result.flops == pytest.approx(48 * (drawn + scored + 3 * scored), rel=1e-12)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_bad_reward_names_update_and_row():
    calls = []

    def sometimes(batch: Batch) -> np.ndarray:
        calls.append(0)
        r = reward(batch)
        if len(calls) == 2:
            r[5] = np.nan
        return r

    with pytest.raises(StageFailure, match="row 5 at update 1"):
        run("grpo", task=Task(ONE, sometimes))


def test_a_gradient_that_is_not_finite_fails_and_leaves_the_weights():
    policy = copy.deepcopy(POLICY)
    huge = Task(ONE, lambda batch: reward(batch) * 1e300)
    before = [p.detach().clone() for p in policy.parameters()]
    with np.errstate(all="ignore"), pytest.raises(StageFailure, match="gradient became"):
        align(policy, REFERENCE, huge, settings("reinforce"), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_own_pairs_train_without_a_reward():
    rows = [TokenRow(1, [0], [1, 2], [3]), TokenRow(2, [0, 4], [5], [6, 7, 8])]
    result = align(
        copy.deepcopy(POLICY), REFERENCE, Task(ONE, pairs=Pairs.of_rows(rows)), settings("dpo-offline", updates=30), 0
    )
    assert result.curves["loss"][0] > result.curves["loss"][-1]
    assert (result.samples, result.target_draws) == (0, None)
