"""Every algorithm against its exact optimum, where all 256 responses (4 tokens, length 4) can be counted.

The policy is a table with a logit for every prefix and token: it can hold any distribution, so that what is left over
is the trainer's. "Sampling error" below is the KL between a histogram of n responses and what they were drawn from:
chi-squared with 255 degrees of freedom over 2n. n counts the second half of training, where the learning rate falls.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from alignfirst.lm.align.trainer import AlignSettings, Labels, Pairs, Task, align
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.theory.objectives import ALGORITHMS, preference_probability

V, L, BETA, SCALE = 4, 4, 1.0, 2.0
B = BETA * SCALE
UPDATES, SAMPLES = 200, 256
ON_POLICY = [a.name for a in ALGORITHMS.values() if a.data == "rollouts" and a.uses_beta]


class TableConfig(PreTrainedConfig):
    model_type = "prefix-table"

    def __init__(self, positions: int = 6, **rest) -> None:
        super().__init__(**rest)
        self.vocab_size, self.positions, self.num_hidden_layers, self.hidden_size = V, positions, 1, V


class TableBody(PreTrainedModel):
    config_class = TableConfig

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(V, 1)  # every causal LM has one; not used
        self.rows = nn.Embedding(sum(V**k for k in range(1, config.positions + 1)), V)
        self.post_init()

    def _init_weights(self, module) -> None: ...

    def forward(self, input_ids, attention_mask=None, **_):
        place, index, base = torch.zeros_like(input_ids), torch.zeros_like(input_ids[:, 0]), 0
        for t in range(input_ids.shape[1]):
            index = index * V + input_ids[:, t]
            place[:, t] = base + index
            base += V ** (t + 1)
        return BaseModelOutputWithPast(last_hidden_state=self.rows(place))


class Table(PreTrainedModel, GenerationMixin):
    """A causal LM that knows every prefix by heart."""

    config_class, base_model_prefix = TableConfig, "body"

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.body, self.head = TableBody(config), nn.Linear(V, V, bias=False)
        self.post_init()

    def _init_weights(self, module) -> None: ...

    def get_input_embeddings(self):
        return self.body.embedding

    def get_output_embeddings(self):
        return self.head

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutputWithPast(logits=self.head(self.body(input_ids).last_hidden_state))


def table(seed: int) -> Table:
    model = Table(TableConfig()).eval()
    with torch.no_grad():
        model.body.embedding.weight.zero_()
        model.body.rows.weight.normal_(0, 0.7, generator=torch.Generator().manual_seed(seed))
        model.head.weight.copy_(torch.eye(V))
    model.body.embedding.requires_grad_(False)
    model.head.requires_grad_(False)
    return model


PROMPT = torch.tensor([0])
ALL = Batch.of(PROMPT.expand(V**L, 1), torch.tensor(list(itertools.product(range(V), repeat=L))))
REWARDS = np.random.default_rng(1).normal(0, 1.0, V**L)


def reward(batch: Batch) -> np.ndarray:
    return REWARDS[(batch.responses @ torch.tensor([V**3, V**2, V, 1])).numpy()]


REFERENCE = table(0)
LOGP_REF = score_batch(REFERENCE, ALL).sum(1)
P_REF = np.exp(LOGP_REF)


def normalised(log_weights: np.ndarray) -> np.ndarray:
    return log_weights - np.log(np.exp(log_weights).sum())


TILT = normalised(LOGP_REF + REWARDS / BETA)


def train(name: str, pairs: Pairs | None = None, rate: float = 0.03, updates: int = UPDATES, **settings):
    """The trained policy's log-probabilities of all responses, [256]."""
    policy = copy.deepcopy(REFERENCE)
    samples = SAMPLES if pairs is None else 2 * len(pairs)
    optim = OptimSettings(rate, betas=(0.9, 0.95), decay=0.5, clip_norm=None)
    beta = BETA if ALGORITHMS[name].uses_beta else 0.0
    s = AlignSettings(
        name, beta, optim, **{"updates": updates, "samples": samples, "labels": Labels(scale=SCALE)} | settings
    )
    result = align(policy, REFERENCE, Task(Prompts(PROMPT[None], L), reward, pairs=pairs), s, seed=3)
    assert result.updates == updates
    return score_batch(policy, ALL).sum(1)


def distance(logq: np.ndarray, logp: np.ndarray) -> tuple[float, float]:
    """KL(q || p) and the gap between their mean rewards."""
    q = np.exp(logq)
    return float((q * (logq - logp)).sum()), float(abs((q - np.exp(logp)) @ REWARDS))


def sampling_error(n: float, information: float = 1.0) -> tuple[float, float]:
    """5 standard errors: of the KL of a histogram of n responses, and of their mean reward."""
    spread = np.sqrt(np.exp(TILT) @ REWARDS**2 - (np.exp(TILT) @ REWARDS) ** 2)
    freedom = V**L - 1
    n = n * information
    return (freedom + 5 * np.sqrt(2 * freedom)) / (2 * n), 5 * spread / np.sqrt(n)


def assert_near(logq: np.ndarray, optimum: np.ndarray, bounds: tuple[float, float]) -> None:
    kl, gap = distance(logq, optimum)
    assert kl < bounds[0]
    assert gap < bounds[1]


def test_the_way_is_long():
    kl, gap = distance(LOGP_REF, TILT)
    bounds = sampling_error(UPDATES / 8 * SAMPLES)  # the widest that is used below
    assert kl > 10 * bounds[0] and gap > 10 * bounds[1]


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", ON_POLICY)
def test_on_policy_algorithms_reach_the_tilt(name, level):
    fresh = SAMPLES * UPDATES / 2 / (4 if name == "ppo" else 1)  # PPO uses every batch four times
    assert_near(train(name, level=level), TILT, sampling_error(fresh))


def test_online_dpo_reaches_the_tilt():
    """A label tells less than a response: b^2 times the variance of the label, averaged over pairs, times 2."""
    p = preference_probability(REWARDS[:, None], REWARDS[None], SCALE)
    told = 2 * B**2 * np.exp(TILT) @ (p * (1 - p)) @ np.exp(TILT)
    assert_near(train("dpo-online", updates=300), TILT, sampling_error(SAMPLES / 2 * 150, told))


def all_pairs(flip: float) -> Pairs:
    """All 65,536 ordered pairs of two draws of the reference, each with the exact probability of its label."""
    first, second = (x.ravel() for x in np.meshgrid(np.arange(V**L), np.arange(V**L), indexing="ij"))
    weight = P_REF[first] * P_REF[second] * preference_probability(REWARDS[first], REWARDS[second], SCALE, flip)
    return Pairs(ALL, first, second, np.ones(len(first), bool), weight=weight / weight.mean())


EXACT = (1e-5, 1e-3)  # nothing is sampled: what is left is optimisation


def test_dpo_on_all_pairs_reaches_the_tilt():
    assert_near(train("dpo-offline", all_pairs(0.0), rate=0.1, updates=150), TILT, EXACT)


@pytest.mark.parametrize("flip", [0.0, 0.2])
def test_ipo_on_all_pairs_reaches_its_own_optimum(flip):
    """pi_ref exp(P(preferred to a draw of pi_ref) / b): Azar et al. 2023, with the identity for Psi."""
    p = preference_probability(REWARDS[:, None], REWARDS[None], SCALE, flip) @ P_REF
    logq = train("ipo", all_pairs(flip), rate=0.1, updates=150, labels=Labels(scale=SCALE, flip=flip))
    assert_near(logq, normalised(LOGP_REF + p / B), EXACT)


def test_imitating_winners_reaches_their_distribution():
    winners = 2 * P_REF * (preference_probability(REWARDS[:, None], REWARDS[None], SCALE) @ P_REF)
    assert_near(train("sft-preferred", all_pairs(0.0), rate=0.1, updates=150), np.log(winners), EXACT)


def test_best_of_n_tends_to_the_best():
    q = np.exp(train("best-of-n", updates=300))
    assert q[REWARDS.argmax()] > 0.95


def test_a_transformer_goes_nearly_all_the_way():
    """With a reward that it can learn to follow: how often the first token comes again, and how often token 3."""
    model = build(TinyLlama(V, 32, 2, 4, 4, 64, 8), seed=1)
    words = ALL.responses.numpy()
    rewards = (words[:, 1:] == words[:, :1]).sum(1) * 0.5 + (words == 3).mean(1)
    logp_ref = score_batch(model, ALL).sum(1)
    tilt = normalised(logp_ref + rewards / 0.3)
    settings = AlignSettings(
        "rloo", 0.3, OptimSettings(3e-3, decay=0.5, clip_norm=None), updates=200, samples=SAMPLES, group_size=32
    )
    policy = copy.deepcopy(model)
    task = Task(Prompts(PROMPT[None], L), lambda b: rewards[(b.responses @ torch.tensor([64, 16, 4, 1])).numpy()])
    align(policy, model, task, settings, seed=0)
    before, after = distance(logp_ref, tilt)[0], distance(score_batch(policy, ALL).sum(1), tilt)[0]
    assert before > 1.5  # nats
    assert after < 0.05 * before  # what is left is what so few steps teach so small a network


def test_a_kl_in_the_loss_of_sequences_has_the_same_optimum():
    assert_near(train("rloo", kl_in="loss"), TILT, sampling_error(SAMPLES * UPDATES / 2))


def test_a_kl_in_the_loss_of_tokens_has_an_optimum_of_its_own():
    """Every token pays for its own KL only: pi(a | s) ~ pi_ref(a | s) exp(E[R | s, a] / beta), from the end back."""
    logp = LOGP_REF.reshape([V] * L)
    value, optimum = REWARDS.reshape([V] * L), np.zeros([V] * L)
    for t in reversed(range(L)):
        given = logp - np.logaddexp.reduce(logp, axis=-1, keepdims=True)  # log pi_ref(a | s)
        tilted = given + value / BETA
        tilted -= np.logaddexp.reduce(tilted, axis=-1, keepdims=True)
        optimum = optimum + tilted.reshape([V] * (t + 1) + [1] * (L - 1 - t))
        value, logp = (np.exp(tilted) * value).sum(-1), np.logaddexp.reduce(logp, axis=-1)
    bounds = sampling_error(SAMPLES * UPDATES / 2)
    logq = train("rloo", kl_in="loss", level="token")
    assert_near(logq, optimum.ravel(), bounds)
    assert distance(logq, TILT)[0] > 2 * bounds[0]
