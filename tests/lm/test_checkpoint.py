"""Trainings that are cut short anywhere and taken up again: bit for bit what they would have been."""

from __future__ import annotations

import copy
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file

from alignfirst.errors import InputError, StageFailure, StoreError, Terminated
from alignfirst.lm.align.trainer import AlignSettings, Task, align
from alignfirst.lm.distil.distillation import METHODS, DistilSettings, distil
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.training import checkpoint as checkpoint_module
from alignfirst.lm.training.checkpoint import Checkpoints, State
from alignfirst.lm.training.counters import Tally
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.processes import ALONE
from alignfirst.lm.training.sft import sft
from alignfirst.signals import deferred
from alignfirst.theory.objectives import ALGORITHMS

V, NEW, UPDATES = 10, 4, 5
PROMPTS = Prompts([torch.tensor([0]), torch.tensor([1, 2, 3])], NEW)
OPTIM = OptimSettings(1e-3, warmup=0.2, decay=0.4)
NEVER = 1e9  # seconds


def model(seed: int) -> Any:
    made = build(TinyLlama(V, 16, 1, 2, 2, 32, 12), seed)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(5)
    return made


FIRST, SECOND = model(1), model(2)


def reward(batch: Batch) -> np.ndarray:
    return np.where(batch.mask.numpy(), batch.responses.numpy() < 3, 0).sum(1) / NEW


def aligned(name: str, **more: Any) -> Any:
    def train(checkpoints: Checkpoints | None) -> tuple[torch.Tensor, Any]:
        policy, used, changed = copy.deepcopy(FIRST), ALGORITHMS[name], dict(more)
        beta = changed.pop("beta", 0.2 if used.uses_beta else 0.0)
        usual = {"updates": UPDATES, "samples": 16, "group_size": 4, "stored_pairs": 24, "epochs": 3, "chunk": 8}
        s = AlignSettings(name, beta, OPTIM, **usual | changed)
        task = Task(PROMPTS, reward, is_target=lambda batch: batch.responses[:, 0].numpy() < 5, pair_source=SECOND)
        reference = SECOND if beta else None
        return weights(policy), align(policy, reference, task, s, 7, checkpoints=checkpoints)

    return train


def distilled(method: str) -> Any:
    def train(checkpoints: Checkpoints | None) -> tuple[torch.Tensor, Any]:
        student = copy.deepcopy(SECOND)
        s = DistilSettings(method, OPTIM, samples=40, updates=UPDATES, batch=16)
        again = Batch.of_rows([([0], [1, 1, 1, 1])] * 8)
        return weights(student), distil(FIRST, student, PROMPTS, s, 7, again, checkpoints=checkpoints)

    return train


def fitted(checkpoints: Checkpoints | None) -> tuple[torch.Tensor, Any]:
    student, rng = copy.deepcopy(SECOND), np.random.default_rng(3)

    def batches() -> Iterator[Batch]:
        while True:
            yield Batch.of_rows([([0], rng.integers(0, V, 4).tolist()) for _ in range(6)])

    return weights(student), sft(student, batches(), UPDATES, OPTIM, checkpoints=checkpoints)


def weights(trained: Any) -> list[torch.Tensor]:
    return list(trained.parameters())  # the parameters themselves: read after the training


TRAININGS: dict[str, Any] = (
    {name: aligned(name) for name in ALGORITHMS}
    | {
        "ppo-token": aligned("ppo", level="token"),
        "ppo-without-reference": aligned("ppo", beta=0.0),
        "grpo-loss": aligned("grpo", level="token", kl_in="loss"),
        "dpo-probed": aligned("dpo-offline", probe_every=2),
    }
    | {method: distilled(method) for method in METHODS}
    | {"fit": fitted}
)


def same(a: tuple[list[torch.Tensor], Any], b: tuple[list[torch.Tensor], Any]) -> bool:
    """Weights bit for bit; counts, curves and costs too."""
    return all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True)) and a[1] == b[1]


@contextmanager
def interrupted_at(n: int, error: type[BaseException]) -> Iterator[list[int]]:
    """Raise when models are asked for the n-th time: while responses are drawn, scored, or trained on."""
    calls = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sample", "score", "train"):
            original = getattr(Tally, name)

            def counted(self: Tally, *args: Any, original: Any = original, **more: Any) -> None:
                original(self, *args, **more)
                calls[0] += 1
                if calls[0] == n:
                    raise error

            patch.setattr(Tally, name, counted)
        yield calls


def whole(train: Any) -> tuple[tuple[list[torch.Tensor], Any], int]:
    """The uninterrupted training, and how often models were asked in it."""
    with interrupted_at(-1, KeyboardInterrupt) as calls:
        return train(None), calls[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    train = TRAININGS[name]
    expected, asked = whole(train)
    assert same(train(Checkpoints(tmp_path / "whole", updates=1)), expected), "checkpoints change nothing"
    resumed = set()
    for n in range(1, asked + 1):
        folder = tmp_path / str(n)
        with interrupted_at(n, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            train(Checkpoints(folder, NEVER))
        resumed |= set(Checkpoints(folder).updates_written())
        assert same(train(Checkpoints(folder, NEVER)), expected)
    assert resumed == set(range(1, UPDATES)), "an interrupt in every update but the first leaves a checkpoint"


@pytest.mark.parametrize("name", TRAININGS)
def test_interrupted_in_the_middle_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """As above, at one place: what the fast tests can afford."""
    expected, asked = whole(TRAININGS[name])
    with interrupted_at(2 * asked // 3, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        TRAININGS[name](Checkpoints(tmp_path, NEVER))
    assert Checkpoints(tmp_path).updates_written()
    assert same(TRAININGS[name](Checkpoints(tmp_path, NEVER)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_after_every_kth_update_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """No farewell: what was written on the way is all there is."""
    train = TRAININGS[name]
    expected, asked = whole(train)
    for every in (1, 2, 3):
        for n in range(2, asked + 1, 3):
            folder = tmp_path / f"{every}-{n}"
            with interrupted_at(n, MemoryError), pytest.raises((MemoryError, StageFailure)):
                train(Checkpoints(folder, updates=every))
            assert same(train(Checkpoints(folder, updates=every)), expected)
            assert len(Checkpoints(folder).updates_written()) <= 2


def test_a_training_that_is_resumed_does_less(tmp_path: Path) -> None:
    train = TRAININGS["dpo-offline"]
    _, asked = whole(train)
    with interrupted_at(asked, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        train(Checkpoints(tmp_path, updates=10))
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["pairs.json", f"update-{UPDATES - 1:09}.json"]
    with interrupted_at(-1, KeyboardInterrupt) as calls:
        train(Checkpoints(tmp_path, updates=10))
    assert calls[0] == 2, "the last update's two chunks; no pair is drawn again"


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    """Killed between its last checkpoint and the storing of what it made."""
    train = TRAININGS["grpo"]
    expected, _ = whole(train)
    with interrupted_at(-1, KeyboardInterrupt):
        train(Checkpoints(tmp_path, updates=1))
    last = Checkpoints(tmp_path).updates_written()[-1]
    with interrupted_at(-1, KeyboardInterrupt) as calls:
        assert same(train(Checkpoints(tmp_path, updates=1)), expected)
    assert calls[0] <= (UPDATES - last) * 6


def test_short_trainings_write_nothing(tmp_path: Path) -> None:
    TRAININGS["dpo-offline"](Checkpoints(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


# -- damage ---------------------------------------------------------------------------------------------------------


def cut_short(folder: Path, at: int = 13) -> None:
    """A training of GRPO that leaves two checkpoints."""
    with interrupted_at(at, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        TRAININGS["grpo"](Checkpoints(folder, updates=1))
    assert len(Checkpoints(folder).updates_written()) == 2


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    elif how == "empty":
        content.clear()
    path.write_bytes(content)
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "gone"])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_checkpoint_goes_to_quarantine_and_the_one_before_is_used(
    how: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = whole(TRAININGS["grpo"])
    cut_short(tmp_path)
    before, last = Checkpoints(tmp_path).updates_written()
    damage(tmp_path / f"update-{last:09}{suffix}", how)
    with caplog.at_level(logging.WARNING):
        found = Checkpoints(tmp_path).newest()
    assert found is not None and found[0] == before
    if (how, suffix) != ("gone", ".json"):  # without a manifest it was never finished
        assert f"checkpoint update-{last:09} " in caplog.text
        assert any(p.name.startswith(f"update-{last:09}") for p in (tmp_path / "quarantine").iterdir())
    assert same(TRAININGS["grpo"](Checkpoints(tmp_path, NEVER)), expected)


def test_without_a_sound_checkpoint_it_starts_anew(tmp_path: Path) -> None:
    expected, _ = whole(TRAININGS["grpo"])
    cut_short(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        damage(path, "flipped")
    with interrupted_at(-1, KeyboardInterrupt) as calls:
        assert same(TRAININGS["grpo"](Checkpoints(tmp_path, NEVER)), expected)
    assert calls[0] == whole(TRAININGS["grpo"])[1]
    assert len(list((tmp_path / "quarantine").iterdir())) == 4


def test_every_byte_is_vouched_for(tmp_path: Path) -> None:
    c = Checkpoints(tmp_path)
    state = State({"a": [1.5, None], "b": float("nan")}, {"x": torch.arange(3.0), "none": torch.zeros(0)})
    for place in range(1000):
        c.write(1, state)
        path = tmp_path / "update-000000001.json" if place % 2 else tmp_path / "update-000000001.safetensors"
        content = bytearray(path.read_bytes())
        at = place // 2
        if at >= len(content):
            continue
        content[at] ^= 1 << (at % 8)
        path.write_bytes(content)
        found = c.newest()
        # JSON has bytes that mean nothing, such as the blank after a comma: their change is no damage
        assert found is None or (path.suffix == ".json" and chr(content[at] ^ 1 << (at % 8)).isspace())


def test_kept_data_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> State:
        made.append(1)
        return State({"n": 3}, {"x": torch.arange(4)})

    c = Checkpoints(tmp_path, seconds=0)
    for _ in range(2):
        assert c.kept(ALONE, "text", make).numbers == {"n": 3}
    assert len(made) == 1
    damage(tmp_path / "text.safetensors", "flipped")
    assert torch.equal(c.kept(ALONE, "text", make).tensors["x"], torch.arange(4))
    assert len(made) == 2


def test_a_checkpoint_of_another_training_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut_short(tmp_path)
    expected, _ = whole(TRAININGS["rloo"])
    with caplog.at_level(logging.WARNING):
        assert same(TRAININGS["rloo"](Checkpoints(tmp_path, NEVER)), expected)
    assert "is of another training" in caplog.text
    assert not Checkpoints(tmp_path).updates_written()


# -- files ----------------------------------------------------------------------------------------------------------


def test_tensors_are_a_safetensors_file(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
        "scalar": torch.tensor(3.0),
        "turned": torch.arange(6).reshape(2, 3).T,
        "yes": torch.tensor([True, False]),
    }
    assert Checkpoints(tmp_path).write(7, State({}, tensors))
    read = load_file(tmp_path / "update-000000007.safetensors")
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_a_disk_that_refuses_fails_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(checkpoint_module, "write_digested", full)
    expected, _ = whole(TRAININGS["dpo-offline"])
    with caplog.at_level(logging.WARNING):
        assert same(TRAININGS["dpo-offline"](Checkpoints(tmp_path, updates=1)), expected)
    assert "no checkpoint after update 1. no space" in caplog.text


def test_writing_takes_at_most_a_twentieth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    c = Checkpoints(tmp_path, seconds=30)

    def slow(*_: Any) -> None:
        now[0] += 10.0

    monkeypatch.setattr(c, "_write", slow)
    assert not c.due(1)
    now[0] = 31.0
    assert c.due(1)
    c.write(1, State())
    now[0] += 190.0
    assert not c.due(2)
    now[0] += 10.0
    assert c.due(2)


@pytest.mark.parametrize("bad", [{"seconds": -1.0}, {"seconds": float("nan")}, {"updates": 0}])
def test_impossible_intervals_are_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoints must be"):
        Checkpoints(tmp_path, **bad)


# -- signals --------------------------------------------------------------------------------------------------------


def test_an_interrupt_waits_for_the_end_of_a_step() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("all of it")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    expected, _ = whole(TRAININGS["grpo"])
    calls = []

    def signalled(batch: Batch) -> np.ndarray:
        calls.append(1)
        if len(calls) == 5:  # in the third update's draw, inside a reward, whose own failures are failures of the cell
            os.kill(os.getpid(), number)
        return reward(batch)

    def train(given: Any, checkpoints: Checkpoints) -> Any:
        policy = copy.deepcopy(FIRST)
        s = AlignSettings("grpo", 0.2, OPTIM, UPDATES, 16, 4, chunk=8, epochs=3, stored_pairs=24)
        task = Task(PROMPTS, given, is_target=lambda batch: batch.responses[:, 0].numpy() < 5)
        return weights(policy), align(policy, SECOND, task, s, 7, checkpoints=checkpoints)

    with pytest.raises((KeyboardInterrupt, Terminated)) as caught:
        train(signalled, Checkpoints(tmp_path, NEVER))
    assert (caught.type is Terminated) == (number == signal.SIGTERM)
    assert Checkpoints(tmp_path).updates_written() == [2]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert same(train(reward, Checkpoints(tmp_path, NEVER)), expected)


def test_the_manifest_can_be_read_by_a_person(tmp_path: Path) -> None:
    cut_short(tmp_path)
    body = json.loads(next(iter(tmp_path.glob("*.json"))).read_text())
    assert set(body["numbers"]) == {"identity", "curves", "tally", "extra_state"}
    assert body["numbers"]["extra_state"]["samples"] > 0
