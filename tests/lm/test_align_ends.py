"""Responses that end early: coefficients times grad log pi is the gradient of the published loss over their own tokens.

What follows the end of a response is padding: no token, no advantage, no part in a mean.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignfirst.lm.align.coefficients import Rollouts, RolloutWork
from alignfirst.lm.align.settings import AlignSettings
from alignfirst.lm.align.trainer import ascend
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import response_logp, score_batch
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.theory.objectives import CLIP

V, NEW, EOS, ROWS = 10, 5, 2, 32
PROMPT = Prompts([torch.tensor([0])], NEW, ends=(EOS,))


def model(seed: int):
    made = build(TinyLlama(V, 16, 1, 2, 2, 32, 12), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(5.0)
    return made


POLICY, REFERENCE = model(1), model(2)
LIVE = copy.deepcopy(POLICY)


def reward(batch: Batch) -> np.ndarray:
    """Far from 0, so that padding, which has no KL to take off, would move every mean."""
    return 3.0 + batch.responses[:, 0].numpy() + batch.lengths.numpy()


def drawn_work(name: str, level: str, beta_in_loss: float = 0.0, rows: slice = slice(0, ROWS)) -> RolloutWork:
    """Rollouts of a policy that has moved since, of which some end early and some do not."""
    drawn = draw_answers(POLICY, PROMPT, np.zeros(ROWS, int), torch.Generator().manual_seed(0))
    batch, logp = drawn.batch, drawn.logp
    mask = batch.mask.numpy()
    assert 0.1 < (~mask).mean() < 0.9 and mask.all(1).any()
    old = logp + np.random.default_rng(0).normal(0, 0.3, logp.shape) * mask
    r = Rollouts(reward(batch), old, score_batch(REFERENCE, batch), mask)
    shaped = r.returns(0.2, level)
    used = AlignSettings(name, beta_in_loss, OptimSettings(1e-3), samples=ROWS, group_size=4, level=level, kl_in="loss")
    return RolloutWork(used, r, shaped, batch.rows(rows), rows)


def ours(work: RolloutWork) -> torch.Tensor:
    LIVE.zero_grad()
    ascend(LIVE, work)
    gradient = torch.cat([p.grad.flatten() for p in LIVE.parameters()])
    LIVE.zero_grad()
    return gradient


def gradient_of(loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(LIVE.parameters()))])


def assert_equal(a: torch.Tensor, b: torch.Tensor) -> None:
    assert b.abs().max() > 1e-3
    assert (a - b).abs().max() < 1e-5 * b.abs().max()  # float32


def by_row(values: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """[N, L] -> each row's own tokens; what has one value a row stays as it is."""
    return [row if len(row) == 1 else row[:n] for row, n in zip(values, lengths.tolist(), strict=True)]


def whole_or_tokens(values: torch.Tensor, level: str) -> torch.Tensor:
    return values if level == "token" else values.sum(1, keepdim=True)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_ppos_gradient_is_that_of_the_clipped_surrogate_over_own_tokens(level: str) -> None:
    """A is standardised over every token that was drawn; the loss is a sum over tokens and a mean over rows."""
    work = drawn_work("ppo", level)
    log_ratio = whole_or_tokens(response_logp(LIVE, work.batch) - torch.tensor(work.rollouts.logp), level)
    lengths = work.batch.lengths
    a = by_row(torch.tensor(work.shaped.T.copy()), lengths)
    every = torch.cat(a)
    total = torch.zeros((), dtype=torch.float64)
    for ratio, advantage in zip(by_row(log_ratio.exp(), lengths), a, strict=True):
        advantage = (advantage - every.mean()) / (every.std(correction=0) + 1e-8)
        total = total + torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).sum()
    assert_equal(ours(work), gradient_of(-total / ROWS))


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_kl_in_the_loss_has_its_published_gradient_over_own_tokens(level: str) -> None:
    """REINFORCE; its mean at a position is over all rows, one that has ended counts with its reward."""
    work = drawn_work("reinforce", level, beta_in_loss=0.7)
    logp, ref, old = (
        whole_or_tokens(x, level)
        for x in (response_logp(LIVE, work.batch), *map(torch.tensor, (work.rollouts.logp_ref, work.rollouts.logp)))
    )
    d, shaped = logp - ref, torch.tensor(work.shaped.T.copy())
    kl = (logp - old).exp() * ((-d).exp() + d - 1)
    total = torch.zeros((), dtype=torch.float64)
    for row in by_row(-(shaped - shaped.mean(0)) * logp + 0.7 * kl, work.batch.lengths):
        total = total + row.sum()
    assert_equal(ours(work), gradient_of(total / ROWS))


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo", "ppo", "best-of-n"])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_chunks_of_uneven_lengths_add_up_to_the_whole(name: str, level: str) -> None:
    whole = ours(drawn_work(name, level))
    parts = [ours(drawn_work(name, level, rows=slice(a, a + 4))) for a in range(0, ROWS, 4)]
    assert_equal(sum(parts), whole)
