"""TRL's stable DPO, RLOO and GRPO trainers, asked for the same thing as the native trainer.

What TRL does differently, and what is done about it here:

- Without a reference given, or with a KL term in RLOO and GRPO always, TRL loads the reference from where the model's
  name points to: a model that was changed in memory silently gets a stale one, and one that has no name none at all.
  Here DPO is given the reference, and for RLOO and GRPO it is written to disk first.
- bf16 and gradient checkpointing are on, dropout in RLOO and GRPO stays on, beta is 0.1, 0.05 and 0, by default. Here
  all are set.
- Text is tokenised again, EOS is added, long prompts are cut or dropped silently. Here TRL gets token ids, through a
  tokenizer of which every token is a word of its own, and what does not fit is refused
  (`alignfirst.lm.align.pair_batches`).
- GRPO has its KL in the loss, token by token (`kl_in: loss`, `level: token`), and by default divides by the number of
  tokens. Here it sums over tokens and averages over responses ("luspo"), as the native trainer does.
- IPO averages over tokens, so its optimum is another one: left to the native trainer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.extras import need
from alignfirst.lm.align.pair_batches import Pairs
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.align.rollouts import Session, draw_pairs
from alignfirst.lm.align.settings import AlignSettings, Task
from alignfirst.lm.align.trainer import check
from alignfirst.lm.models.save import quiet
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.torch_streams import permutations
from alignfirst.lm.training.counters import Log, TrainingCurves
from alignfirst.lm.training.optim import rate
from alignfirst.lm.training.processes import ALONE
from alignfirst.lm.training.result import TrainingResult
from alignfirst.process_environment import trackers
from alignfirst.theory.trl_limits import check_trl


def align_with_trl(
    policy: Any, reference: Any, task: Task, settings: AlignSettings, seed: int, log: Log | None = None
) -> TrainingResult:
    """As `alignfirst.lm.align.trainer.align`, by TRL's trainer. Trains `policy` in place.

    Pairs are taken in the same order, so that DPO has the same losses; rollouts are drawn by other random numbers.
    """
    need("trl", "datasets", "accelerate", "tokenizers")
    check(policy, reference, task, settings)
    check_trl(settings.algorithm, settings.level, settings.kl_in)
    if task.pairs is not None and task.pairs.weight is not None:
        raise InputError("TRL's DPO takes unweighted pairs", "weights", "Use the native trainer.")
    s = Session(policy, reference, task, settings, seed, ALONE)
    student = deepcopy(policy)  # TRL replaces its `forward` and edits its configs
    with TemporaryDirectory(prefix="alignfirst-trl-") as scratch, global_seeds_kept(seed), quiet():
        trainer = trainer_for(s, student, Path(scratch))
        trainer.train()
    policy.load_state_dict(student.state_dict())
    recorded = curves_of(trainer.state.log_history, settings, log)
    hits = None if task.is_target is None or not s.samples else s.hits
    t = s.tally
    return TrainingResult(settings.updates, s.samples, t.tokens(), t.flops, recorded.curves, hits)


def trainer_for(s: Session, student: Any, scratch: Path) -> Any:
    """TRL's trainer, with its rollouts or pairs, ready to train `student`."""
    from transformers import PrinterCallback

    make = dpo_trainer if s.settings.algorithm == "dpo-offline" else rollout_trainer
    trainer = make(s, student, scratch)
    trainer.remove_callback(PrinterCallback)
    return trainer


# -- DPO ------------------------------------------------------------------------------------------------------------


def dpo_trainer(s: Session, student: Any, scratch: Path) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class TokenDpo(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # token ids already: no second tokenisation, no EOS added, nothing dropped

        def _get_train_sampler(self, *_: Any) -> Any:
            return order  # one pass over all updates, where TRL would shuffle by numbers of its own

    pairs = s.task.pairs if s.task.pairs is not None else draw_pairs(s)
    order = [int(i) for picks in picks_of(s, pairs) for i in picks]
    arguments = DPOConfig(
        beta=s.settings.b,
        max_length=None,
        per_device_train_batch_size=len(order) // s.settings.updates,
        **common_arguments(s, scratch),
    )
    count_pairs(s, pairs)
    return TokenDpo(
        model=student,
        ref_model=deepcopy(s.reference),
        args=arguments,
        train_dataset=Dataset.from_list(pair_rows(pairs)),
        processing_class=id_tokenizer(student.config.vocab_size, s.task.prompts.ends),
        optimizers=optimizers(student, s.settings),
    )


def picks_of(s: Session, pairs: Pairs) -> Iterator[Any]:
    """Which pairs are in each update: the native trainer's, so that both see the same losses."""
    n = min(s.settings.samples // 2, len(pairs))
    return islice(permutations(s.rng("batches"), len(pairs), n), s.settings.updates)


def count_pairs(s: Session, pairs: Pairs) -> None:
    """What training on pairs costs. TRL asks the reference again in every update."""
    for picks in picks_of(s, pairs):
        batch = pairs.pool.rows(np.concatenate([pairs.first[picks], pairs.second[picks]])).trimmed()
        s.tally.score(s.reference, batch)
        s.tally.train(s.policy, batch)


def pair_rows(pairs: Pairs) -> list[dict[str, list[int]]]:
    """Pairs as TRL's DPO keeps them after its own tokenisation."""
    ids = [pairs.pool.text_ids(row) for row in range(len(pairs.pool))]
    winners = np.where(pairs.first_wins, pairs.first, pairs.second)
    losers = np.where(pairs.first_wins, pairs.second, pairs.first)
    return [
        {"prompt_ids": ids[w][0], "chosen_ids": ids[w][1], "rejected_ids": ids[l_][1]}
        for w, l_ in zip(winners, losers, strict=True)
    ]


# -- RLOO and GRPO --------------------------------------------------------------------------------------------------


def rollout_trainer(s: Session, student: Any, scratch: Path) -> Any:
    from datasets import Dataset
    from transformers import GenerationConfig
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, trainer = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}[s.settings.algorithm]
    prompts, settings = s.task.prompts, s.settings
    if settings.beta:
        student.config._name_or_path = str(scratch / "reference")  # where TRL will load its reference from
        s.reference.save_pretrained(scratch / "reference")
    # A hub model brings its own defaults; TRL stops at all ends that stand here
    student.generation_config = GenerationConfig(eos_token_id=list(prompts.ends) or None)
    arguments = config(
        beta=settings.beta,
        per_device_train_batch_size=settings.samples,
        num_generations=settings.group_size,
        max_completion_length=prompts.new_tokens,
        temperature=1.0,
        shuffle_dataset=False,
        disable_dropout=True,
        **({"loss_type": "luspo", "scale_rewards": "group"} if settings.algorithm == "grpo" else {}),
        **common_arguments(s, scratch),
    )
    return trainer(
        model=student,
        reward_funcs=TrlReward(s),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompt_texts(s)]),
        processing_class=id_tokenizer(student.config.vocab_size, prompts.ends),
        optimizers=optimizers(student, settings),
    )


def prompt_texts(s: Session) -> list[str]:
    """Prompts of all updates, as words that are token ids, in the order in which the native trainer takes them."""
    picks = permutations(s.rng("prompts"), len(s.task.prompts), s.settings.samples // s.settings.group_size)
    which = np.concatenate(list(islice(picks, s.settings.updates)))
    return [" ".join(f"t{i}" for i in s.task.prompts.rows[w].tolist()) for w in which]


class TrlReward:
    """The task's reward in TRL's calling convention; counts what was drawn."""

    __name__ = "reward"

    def __init__(self, s: Session) -> None:
        self.s, self.calls = s, 0

    def __call__(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        s = self.s
        asked = [[int(word[1:]) for word in prompt.split()] for prompt in prompts]
        batch = Batch.of_rows(list(zip(asked, completion_ids, strict=True)))
        assert s.task.reward is not None
        rewards = rewards_of(s.task.reward, batch, f"update {self.calls}", s.settings.reward_timeout)
        self.calls += 1
        s.samples += len(batch)
        s.hits += 0 if s.task.is_target is None else int(np.asarray(s.task.is_target(batch), bool).sum())
        for count in (s.tally.sample, s.tally.train):
            count(s.policy, batch)
        return rewards.tolist()


# -- what all three share -------------------------------------------------------------------------------------------


def common_arguments(s: Session, scratch: Path) -> dict[str, Any]:
    """Everything whose default would make the comparison another one."""
    clip = s.settings.optim.clip_norm
    return {
        "output_dir": str(scratch),
        "max_steps": s.settings.updates,
        "max_grad_norm": 0.0 if clip is None else clip,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "use_cpu": s.policy.device.type == "cpu",
        "seed": s.seed % 2**31,
        "report_to": trackers() or "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def optimizers(student: Any, settings: AlignSettings) -> tuple[Any, Any]:
    """The native trainer's AdamW and schedule."""
    o = settings.optim
    parameters = [p for p in student.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(
        parameters, lr=o.learning_rate, betas=o.betas, eps=o.epsilon, weight_decay=o.weight_decay, fused=True
    )
    last = settings.updates - 1
    factor = lambda step: rate(o, min(step, last), settings.updates) / o.learning_rate  # noqa: E731
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, factor)


def id_tokenizer(vocabulary: int, ends: Sequence[int]) -> Any:
    """A tokenizer whose words are token ids, t0 t1 ..: text goes through TRL and comes back as it was.

    Its EOS is the first of `ends`; where answers have none, a token that the model does not have, and so never draws.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{i}": i for i in range(vocabulary + (not ends))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = f"t{ends[0] if ends else vocabulary}"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="t0", eos_token=end, padding_side="left")


@contextmanager
def global_seeds_kept(seed: int) -> Iterator[None]:
    """TRL seeds every global generator; whoever called us keeps theirs."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


NAMES = {name: name for name in ("reward", "loss", "grad_norm")} | {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}


def curves_of(history: Sequence[dict[str, Any]], settings: AlignSettings, log: Log | None) -> TrainingCurves:
    """TRL's log as curves under our names: entropy and KL of whole responses, margins without beta."""
    recorded = TrainingCurves(log)
    for entry in history:
        if "grad_norm" not in entry:
            continue
        values = {ours: float(entry[theirs]) for ours, theirs in NAMES.items() if theirs in entry}
        if "margin" in values:
            values["margin"] /= settings.b
        length = entry.get("completions/mean_length")
        for name in ("kl", "entropy"):
            if length is not None and name in entry:
                values[name] = float(entry[name] * length)
        recorded.add(values)
    return recorded
