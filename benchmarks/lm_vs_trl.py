"""The native trainer's step against TRL's, asked for the same thing.

    python benchmarks/lm_vs_trl.py [--quick]

Both models of preset `grammar` (sft of about 0.2 M weights, student of about 0.04 M), 128 responses of 16 tokens an
update (64 pairs), groups of 8, float32, no gradient checkpointing, AdamW, one thread. CPU-seconds of whole steps, from
one to the next: sampling, rewards, reference, gradient, optimiser, logging. Setting up is left out. The two take turns;
medians over rounds. DPO trains on the same pairs; GRPO samples for itself, without a KL term (TRL's default: no
reference on either side) and with one. Needs the extra `lm`.

GRPO's bar is held on the student. On the larger sft both trainers wait for the same matrix products, and it is missed.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.simplefilter("ignore")  # of what TRL and transformers will rename

BARS = {"dpo-offline": 1.5, "grpo": 2.0}  # at least so many times as fast as TRL
HELD = {("sft", "dpo-offline"), ("student", "dpo-offline"), ("student", "grpo")}  # decide the exit code
MODELS = {"sft": (96, 2, 256), "student": (64, 1, 128)}
SUBJECTS = [("dpo-offline", 0.1, {}), ("grpo", 0.0, {}), ("grpo", 0.1, {"kl_in": "loss", "level": "token"})]
VOCABULARY, NEW, WARM_UP = 48, 16, 3


def reward(batch: Any) -> Any:
    return (batch.responses < 16).float().mean(1).numpy()


def steps_of(clock: list[float]) -> list[float]:
    """CPU-seconds from the end of one step to the end of the next, without the first few."""
    return [b - a for a, b in zip(clock[WARM_UP:-1], clock[WARM_UP + 1 :], strict=True)]


def native(policy: Any, reference: Any, task: Any, settings: Any) -> list[float]:
    from alignfirst.lm.align.trainer import align

    clock: list[float] = []
    align(policy, reference, task, settings, 0, log=lambda update, values: clock.append(time.process_time()))
    return steps_of(clock)


def trl(policy: Any, reference: Any, task: Any, settings: Any) -> list[float]:
    from transformers import TrainerCallback

    from alignfirst.lm.align.rollouts import Session
    from alignfirst.lm.align.trl_trainer import global_seeds_kept, quiet, trainer_for
    from alignfirst.lm.training.processes import ALONE

    clock: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(time.process_time())

    session = Session(policy, reference, task, settings, 0, ALONE)
    with TemporaryDirectory() as scratch, global_seeds_kept(0), quiet():
        trainer = trainer_for(session, policy, Path(scratch))
        trainer.add_callback(Clock())
        trainer.train()
    return steps_of(clock)


def measure(
    sizes: tuple[int, int, int], name: str, beta: float, more: dict[str, str], rounds: int
) -> tuple[float, float]:
    """Median CPU-seconds of a step: native, TRL."""
    import torch

    from alignfirst.lm.align.rollouts import Session, draw_pairs
    from alignfirst.lm.align.trainer import AlignSettings, Task
    from alignfirst.lm.models.build import TinyLlama, build
    from alignfirst.lm.text.batch import Prompts
    from alignfirst.lm.training.optim import OptimSettings
    from alignfirst.lm.training.processes import ALONE

    torch.set_num_threads(1)
    hidden, layers, intermediate = sizes
    model = build(TinyLlama(VOCABULARY, hidden, layers, 4, 4, intermediate, NEW + 1), seed=0)
    settings = AlignSettings(name, beta, OptimSettings(1e-3), updates=WARM_UP + 12, stored_pairs=1024, **more)
    task = Task(Prompts(torch.zeros(1, 1, dtype=torch.long), NEW), reward)
    if name == "dpo-offline":
        pairs = draw_pairs(Session(model, model, task, settings, 0, ALONE))
        task = Task(task.prompts, reward, pairs=pairs)
    times: dict[Callable[..., list[float]], list[float]] = {native: [], trl: []}
    for _ in range(rounds):
        for subject, taken in times.items():
            reference = copy.deepcopy(model) if beta else None
            taken += subject(copy.deepcopy(model), reference, task, settings)
    return statistics.median(times[native]), statistics.median(times[trl])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    rounds = 1 if parser.parse_args().quick else 5
    print(f"{'model':8} {'algorithm':12} {'beta':>5} {'native':>10} {'TRL':>10} {'ratio':>6} {'bar':>6}")
    met = True
    for label, sizes in MODELS.items():
        for name, beta, more in SUBJECTS:
            ours, theirs = measure(sizes, name, beta, more, rounds)
            ratio = theirs / ours
            met &= ratio >= BARS[name] or (label, name) not in HELD
            row = f"{label:8} {name:12} {beta:5.1f} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms"
            print(f"{row} {ratio:5.2f}x {BARS[name]:5.1f}x", flush=True)
    print("load average:", *(f"{x:.1f}" for x in os.getloadavg()))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
