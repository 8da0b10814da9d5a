"""TRL's trainers and the native one: the same batch, the same loss, the same gradient; and TRL's traps."""

from __future__ import annotations

import copy

import numpy as np
import pytest

for _name in ("torch", "transformers", "trl", "datasets", "accelerate"):
    pytest.importorskip(_name)

import torch

from alignfirst.data.rows import TokenRow
from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.align.coefficients import Rollouts, RolloutWork
from alignfirst.lm.align.pair_batches import Labels, Pairs, PairWork
from alignfirst.lm.align.rollouts import Session
from alignfirst.lm.align.trainer import AlignSettings, Task, align, ascend
from alignfirst.lm.align.trl_trainer import (
    align_with_trl,
    global_seeds_kept,
    id_tokenizer,
    quiet,
    trainer_for,
)
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE

# TRL and transformers warn of what they will rename; the project's own warnings stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

V, NEW, N, GROUP = 12, 5, 16, 4
PROMPTS = Prompts([torch.tensor([0, 3]), torch.tensor([1, 2])], NEW)


def model(seed: int):
    made = build(TinyLlama(V, 16, 2, 2, 2, 32, 16), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(6)  # far from uniform
    return made


POLICY, REFERENCE = model(1), model(2)


def reward(batch: Batch) -> np.ndarray:
    return (batch.responses < 4).float().mean(1).numpy() + 0.1 * batch.responses[:, 0].numpy()


def session(name: str, beta: float, **settings) -> Session:
    s = AlignSettings(
        name, beta, OptimSettings(1e-3), updates=1, samples=N, group_size=GROUP, stored_pairs=N // 2, **settings
    )
    return Session(POLICY, REFERENCE, Task(PROMPTS, reward), s, 7, ALONE)


def gradients(trained) -> np.ndarray:
    return torch.cat([p.grad.flatten() for p in trained.parameters()]).double().numpy()


def trl_loss(s: Session, tmp_path):
    """Loss and gradient of TRL's first batch, and that batch."""
    student = copy.deepcopy(POLICY)
    with global_seeds_kept(0), quiet():
        trainer = trainer_for(s, student, tmp_path)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        batch = next(iter(trainer.get_train_dataloader()))
        # RLOO and GRPO shuffle a batch once its groups have been compared; before that, groups are still together.
        score = getattr(trainer, "_generate_and_score_completions", trainer._prepare_inputs)
        inputs = score(batch)
        loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return float(loss), gradients(student), inputs


def native_loss(work) -> tuple[float, np.ndarray]:
    student = copy.deepcopy(POLICY)
    notes = ascend(student, work)
    return float(notes["loss"].mean()), gradients(student)


def assert_same(ours, theirs) -> None:
    """float32 on both sides: a relative 1e-5 of the largest gradient, and of a loss of order one."""
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert np.abs(theirs[1]).max() > 1e-3
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-5 * np.abs(theirs[1]).max())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_has_trls_loss_and_gradient(tmp_path, beta):
    s = session("dpo-offline", beta, labels=Labels(scale=2.0))
    *theirs, inputs = trl_loss(s, tmp_path)
    ids, own = inputs["input_ids"], inputs["completion_mask"].bool()
    prompt = int(own[0].int().argmax())
    pool = Batch.of(ids[:, :prompt], ids[:, prompt:])
    pairs = Pairs(pool, np.arange(N // 2), np.arange(N // 2, N), np.ones(N // 2, bool))
    logp_ref = score_batch(REFERENCE, pool).sum(1)
    pairs = Pairs(pool, pairs.first, pairs.second, pairs.first_wins, logp_ref=logp_ref)
    work = PairWork.of(s.settings.used, s.settings.b, N // 2, pairs, np.arange(N // 2))
    assert_same(native_loss(work), theirs)


def rollout_work(s: Session, inputs) -> RolloutWork:
    """TRL's own rollouts as work of the native trainer."""
    batch = Batch.of(inputs["prompt_ids"], inputs["completion_ids"], inputs["completion_mask"])
    rollouts = Rollouts(reward(batch), score_batch(POLICY, batch), score_batch(REFERENCE, batch), batch.mask.numpy())
    beta = s.settings.beta if s.settings.kl_in == "reward" else 0.0
    shaped = rollouts.returns(beta, s.settings.level)
    return RolloutWork(s.settings, rollouts, shaped, batch, slice(0, N))


@pytest.mark.parametrize(
    ("name", "beta", "settings"),
    [
        ("rloo", 0.0, {}),
        ("grpo", 0.0, {}),
        ("grpo", 0.0, {"level": "token"}),
        ("rloo", 0.3, {}),  # both have the KL in the reward of whole sequences
        ("grpo", 0.3, {"level": "token", "kl_in": "loss"}),  # the option that covers TRL's definition
    ],
)
def test_rollout_algorithms_have_trls_loss_and_gradient(tmp_path, name, beta, settings):
    s = session(name, beta, **settings)
    *theirs, inputs = trl_loss(s, tmp_path)
    assert_same(native_loss(rollout_work(s, inputs)), theirs)


# -- TRL's traps ------------------------------------------------------------------------------------------------------


def test_trl_alone_takes_a_stale_reference(tmp_path):
    """Why the adapter writes the reference to disk. When this fails, TRL no longer does it."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    POLICY.save_pretrained(tmp_path / "saved")
    changed = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        changed.model.embed_tokens.weight.zero_()
    arguments = GRPOConfig(
        str(tmp_path), beta=0.1, bf16=False, use_cpu=True, report_to="none",
        per_device_train_batch_size=4, num_generations=2,
    )  # fmt: skip
    with global_seeds_kept(0), quiet():
        trainer = GRPOTrainer(
            model=changed, reward_funcs=lambda **_: [], args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "t0"}] * 4), processing_class=id_tokenizer(V, ()),
        )  # fmt: skip
    assert trainer.ref_model.model.embed_tokens.weight.abs().max() > 0


@pytest.mark.parametrize(("name", "settings"), [("rloo", {}), ("grpo", {"level": "token", "kl_in": "loss"})])
def test_the_reference_is_the_one_in_memory(tmp_path, name, settings):
    with global_seeds_kept(0), quiet():
        trainer = trainer_for(session(name, 0.3, **settings), copy.deepcopy(POLICY), tmp_path)
    for theirs, ours in zip(trainer.ref_model.parameters(), REFERENCE.parameters(), strict=True):
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize(("name", "beta"), [("dpo-offline", 0.25), ("rloo", 0.25), ("grpo", 0.0)])
def test_nothing_is_left_to_trls_defaults(tmp_path, name, beta):
    s = session(name, beta)
    student = copy.deepcopy(POLICY)
    student.config.attention_dropout = 0.5
    with global_seeds_kept(0), quiet():
        trainer = trainer_for(s, student, tmp_path)
    a = trainer.args
    assert (a.bf16, a.fp16, a.gradient_checkpointing) == (False, False, False)
    assert (a.beta, a.max_steps, a.max_grad_norm, a.disable_dropout) == (beta, 1, 1.0, True)
    group = trainer.optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.95), 0.0)
    assert next(trainer.model.parameters()).dtype == torch.float32


def test_dpo_keeps_every_pair_and_adds_no_end(tmp_path):
    s = session("dpo-offline", 0.1)
    with global_seeds_kept(0), quiet():
        trainer = trainer_for(s, copy.deepcopy(POLICY), tmp_path)
    assert len(trainer.train_dataset) == N // 2
    assert {len(row) for row in trainer.train_dataset["chosen_ids"]} == {NEW}


def test_prompts_too_long_are_refused():
    long = Prompts([torch.tensor([0]), torch.zeros(13).long()], NEW)
    for name in ("rloo", "dpo-offline"):
        with pytest.raises(InputError, match="prompt 1 has 13"):
            align_with_trl(POLICY, REFERENCE, Task(long, reward), session(name, 0.1).settings, 0)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ppo", {}, "algorithms must be among dpo-offline, rloo, grpo"),
        ("ipo", {}, "algorithms must be among"),
        ("grpo", {}, "grpo of TRL must have level: token and kl_in: loss"),
        ("grpo", {"kl_in": "loss"}, "got level: sequence, kl_in: loss"),
        ("rloo", {"kl_in": "loss"}, "rloo of TRL must have level: sequence and kl_in: reward"),
        ("rloo", {"level": "token"}, "got level: token, kl_in: reward"),
    ],
)
def test_what_trl_defines_otherwise_is_refused(name, settings, words):
    with pytest.raises(InputError, match=words):
        align_with_trl(POLICY, REFERENCE, Task(PROMPTS, reward), session(name, 0.1, **settings).settings, 0)


def test_weighted_pairs_are_refused():
    pairs = Pairs.of_rows([TokenRow(1, [0], [1], [2])])
    weighted = Pairs(pairs.pool, pairs.first, pairs.second, pairs.first_wins, weight=np.ones(1))
    with pytest.raises(InputError, match="unweighted"):
        align_with_trl(POLICY, REFERENCE, Task(PROMPTS, pairs=weighted), session("dpo-offline", 0.1).settings, 0)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"), [("dpo-offline", {}), ("rloo", {}), ("grpo", {"level": "token", "kl_in": "loss"})]
)
def test_training_goes_where_the_native_trainer_goes(name, settings):
    """Other random numbers, the same expected way: rewards of 1,000 responses of either, within 5 standard errors."""
    usual = {"updates": 25, "samples": 64, "stored_pairs": 512, "labels": Labels(scale=5.0)}
    s = AlignSettings(name, 0.05, OptimSettings(3e-3), **usual, **settings)
    reached, reference = [], copy.deepcopy(POLICY)
    for trainer in (align, align_with_trl):
        policy = copy.deepcopy(POLICY)
        forward, config = policy.forward, policy.config.to_dict()
        torch.manual_seed(1)
        state = torch.get_rng_state()
        result = trainer(policy, reference, Task(PROMPTS, reward, lambda b: reward(b) > 1), s, 0)
        assert (policy.forward, policy.config.to_dict()) == (forward, config)
        assert torch.equal(torch.get_rng_state(), state)
        assert result.updates == 25 and result.target_draws > 0
        assert {len(c) for c in result.curves.values()} == {25}
        assert result.samples == (1024 if name == "dpo-offline" else 1600)
        reached.append(
            reward(draw_answers(policy, PROMPTS, np.arange(1000) % 2, torch.Generator().manual_seed(3)).batch)
        )
    start = reward(draw_answers(POLICY, PROMPTS, np.arange(1000) % 2, torch.Generator().manual_seed(3)).batch)
    native, trl = reached
    error = np.sqrt((native.var() + trl.var()) / 1000)
    assert native.mean() > start.mean() + 5 * error and trl.mean() > start.mean() + 5 * error
    # two trainings differ by their own draws too: as much as their means moved in the last updates
    assert abs(native.mean() - trl.mean()) < 5 * error + 0.1 * (native.mean() - start.mean())


def test_a_bad_reward_names_its_row():
    def bad(batch: Batch) -> np.ndarray:
        return np.where(np.arange(len(batch)) == 2, np.nan, 0.0)

    with pytest.raises(StageFailure, match="row 2 at update 0"):
        align_with_trl(copy.deepcopy(POLICY), REFERENCE, Task(PROMPTS, bad), session("rloo", 0.1).settings, 0)


def test_answers_that_end_are_taken_as_they_are(tmp_path):
    ending = Prompts(PROMPTS.rows, NEW, ends=(5,))
    lengths = []

    def noting(batch: Batch) -> np.ndarray:
        lengths.extend(batch.lengths.tolist())
        own = np.where(batch.mask.numpy(), batch.responses.numpy(), -1)
        assert ((own == 5).sum(1) <= 1).all()
        return reward(batch)

    s = session("rloo", 0.1).settings
    align_with_trl(copy.deepcopy(POLICY), REFERENCE, Task(ending, noting), s, 0)
    assert min(lengths) < NEW


def test_dpo_has_the_native_trainers_losses_update_by_update():
    """Both take the same pairs in the same order, over more than one pass; float32 on both sides."""
    rng = np.random.default_rng(0)
    rows = [TokenRow(i, [0, 3], rng.integers(0, V, 3).tolist(), rng.integers(0, V, 5).tolist()) for i in range(11)]
    task = Task(PROMPTS, pairs=Pairs.of_rows(rows))
    s = AlignSettings("dpo-offline", 0.5, OptimSettings(1e-2), updates=6, samples=8)
    curves = [t(copy.deepcopy(POLICY), REFERENCE, task, s, 0).curves for t in (align, align_with_trl)]
    native, trl = (np.array(c["loss"]) for c in curves)
    assert native.std() > 0.05
    np.testing.assert_allclose(native, trl, rtol=0, atol=1e-4)
