"""Two processes (accelerate, gloo) that share an update train as one does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

for _name in ("torch", "transformers", "accelerate"):
    pytest.importorskip(_name)

sys.path.insert(0, str(Path(__file__).parent))
from two_processes import trained

SCRIPT = """
import copy, json, sys
import numpy as np, torch
torch.set_num_threads(1)
from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.align.trainer import AlignSettings, Labels, Task, align
from alignfirst.lm.text.batch import Prompts
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE, Accelerated
from alignfirst.lm.models.build import TinyLlama, build

out = sys.argv[1]
if sys.argv[2] == "alone":
    team = ALONE
else:
    from accelerate import Accelerator
    team = Accelerated(Accelerator(cpu=True))
    assert team.size == 2

def model(seed):
    made = build(TinyLlama(10, 16, 1, 2, 2, 32, 12), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(5)
    return made

prompts = Prompts([torch.tensor([0]), torch.tensor([1, 2])], 4)
reward = lambda batch: (batch.responses < 3).float().mean(1).numpy()
is_target = lambda batch: (batch.responses[:, 0] == 1).numpy()
results = {}
for name, more in CASES:
    policy = model(1)
    s = AlignSettings(name, 0.2, OptimSettings(1e-2, epsilon=1e-3), updates=UPDATES, samples=32, group_size=4,
                      stored_pairs=512, epochs=2, chunk=8, labels=Labels(scale=3.0), **more)
    r = align(policy, model(2), Task(prompts, reward, is_target), s, 0, team=team)
    weights = torch.cat([p.detach().flatten() for p in policy.parameters()]).tolist()
    results[name + json.dumps(more)] = [weights, r.curves, r.samples, r.target_draws, r.tokens, r.flops]

def bad(batch):
    answer = reward(batch)
    if team.rank == team.size - 1:
        answer[1] = np.nan
    return answer

s = AlignSettings("rloo", 0.2, OptimSettings(1e-3), updates=1, samples=32, group_size=4, chunk=8)
try:
    align(model(1), model(2), Task(prompts, bad), s, 0, team=team)
except StageFailure as e:
    results["failure"] = str(e)
try:
    odd = AlignSettings("rloo", 0.2, OptimSettings(1e-3), updates=1, samples=32, group_size=4)
    align(model(1), model(2), Task(prompts, reward), odd, 0, team=team)
except InputError as e:
    results["refusal"] = str(e)
json.dump(results, open(f"{out}/{sys.argv[2]}-{team.rank}.json", "w"))
if team is not ALONE:
    torch.distributed.destroy_process_group()
"""
CASES = [
    ("reinforce", {}),
    ("grpo", {"level": "token", "kl_in": "loss"}),
    ("ppo", {"level": "token"}),
    ("dpo-online", {}),
    ("dpo-offline", {}),
]
UPDATES = 4


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What one process and each of two came to."""
    return trained(
        tmp_path_factory.mktemp("processes"), SCRIPT.replace("CASES", repr(CASES)).replace("UPDATES", str(UPDATES))
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_two_processes_train_as_one(results, case):
    """Gradients differ in the order of four float32 sums; four steps of 1e-2 keep weights within 1e-5."""
    name = case[0] + json.dumps(case[1])
    alone, *pair = (r[name] for r in results)
    for weights, curves, *counts in pair:
        np.testing.assert_allclose(weights, alone[0], rtol=0, atol=1e-5)
        assert counts == alone[2:]
        for curve in curves:
            values = [np.array([np.nan if v is None else v for v in c[curve]]) for c in (curves, alone[1])]
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
    assert pair[0][0] == pair[1][0]  # both processes hold the same model, bit for bit


@pytest.mark.slow
def test_a_failure_of_one_process_fails_all(results):
    alone, *pair = (r["failure"] for r in results)
    assert "row 1 at update 0" in alone
    assert pair[0] == pair[1] and "row 1 at update 0" in pair[0]


@pytest.mark.slow
def test_an_update_must_be_shareable(results):
    assert "refusal" not in results[0]
    assert all("must have a multiple of 2 chunks" in r["refusal"] for r in results[1:])
