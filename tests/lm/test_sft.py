"""Epochs over fixed texts: the best check's weights are kept, patience ends, chunks and processes change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

import torch

from alignfirst.errors import InputError
from alignfirst.lm.models.build import SmolLlama, build
from alignfirst.lm.models.surgery import cut_vocabulary, most_used
from alignfirst.lm.text import device
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.lm.text.torch_streams import permutations, stream
from alignfirst.lm.training.checkpoint import Checkpoints
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.lm.training.result import TrainingResult
from alignfirst.lm.training.sft import HeldOut, sft

SIZES = SmolLlama(12, 16, 2, 2, 1, 24, 8)
PROMPT = np.array([3])


def texts_of(n: int, seed: int) -> Batch:
    """Texts of up to 5 tokens that repeat their first one."""
    rng = np.random.default_rng(seed)
    tokens = np.repeat(rng.integers(0, 12, (n, 1)), 5, 1).astype(np.uint16)
    lengths = rng.integers(1, 6, n)
    return Batch.of_arrays(PROMPT, tokens, lengths)


def fit(
    model: Any, texts: Batch, held: Batch, seed: int, updates: int = 12, optim: Any = None, checks: int = 4,
    patience: int | None = None, **more: Any,
) -> TrainingResult:  # fmt: skip
    order = permutations(stream(seed, "batches", 0), len(texts), 8)
    chosen = HeldOut(held, checks, patience)
    return sft(model, order, updates, optim or OptimSettings(0.01), read=texts.rows, held_out=chosen, **more)


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def held_out_loss(model: Any, batch: Batch) -> float:
    return float(-score_batch(model, batch).sum() / batch.mask.sum())


def test_without_a_choice_to_make_it_is_plain_fitting() -> None:
    """One check, at the end: the last weights, as they come without held-out text, on the same batches as batches."""
    texts, held = texts_of(40, 0), texts_of(16, 1)
    a, b = build(SIZES, 0), build(SIZES, 0)
    found = fit(a, texts, held, 7, checks=1)
    picks = permutations(stream(7, "batches", 0), 40, 8)

    def batches() -> Any:
        while True:
            yield texts.rows(next(picks))

    plain = sft(b, batches(), 12, OptimSettings(0.01))
    assert torch.equal(weights(a), weights(b))
    assert found.curves["loss"] == plain.curves["loss"] and found.kept == 12
    assert found.held_out == pytest.approx(held_out_loss(a, held), abs=1e-6)


def test_the_best_check_is_kept_and_patience_ends_the_training() -> None:
    """Far too large steps: held-out text gets worse, and the weights go back to where it was best."""
    texts, held = texts_of(8, 0), texts_of(64, 1)
    model = build(SIZES, 0)
    found = fit(model, texts, held, 0, 200, OptimSettings(0.1), checks=50, patience=3)
    looks = [(u + 1, v) for u, v in enumerate(found.curves["held_out"]) if v is not None]
    assert found.held_out == min(v for _, v in looks)
    assert found.kept == min(looks, key=lambda x: x[1])[0] < found.updates < 200
    assert [u for u, _ in looks].index(found.kept) == len(looks) - 4
    assert held_out_loss(model, held) == pytest.approx(found.held_out, abs=1e-6)


@pytest.mark.parametrize("chunk", [2, 3])
def test_chunks_add_up_to_the_whole_batch(chunk: int) -> None:
    texts, held = texts_of(40, 0), texts_of(16, 1)
    a, b = build(SIZES, 0), build(SIZES, 0)
    optim = OptimSettings(0.01, epsilon=1e-3)  # Adam divides by tiny second moments: rounding would be steps
    whole = fit(a, texts, held, 7, optim=optim)
    parts = fit(b, texts, held, 7, optim=optim, chunk=chunk)
    np.testing.assert_allclose(weights(a), weights(b), atol=1e-4)
    np.testing.assert_allclose(whole.curves["loss"], parts.curves["loss"], rtol=1e-4)
    assert whole.updates == parts.updates and whole.kept == parts.kept


class Cut(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("at", [1, 4, 9, 15])
def test_cut_short_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, at: int) -> None:
    """The best weights so far and the count of checks come back too: patience ends where it would have ended."""
    texts, held = texts_of(8, 0), texts_of(64, 1)
    s: dict[str, Any] = {"updates": 200, "optim": OptimSettings(0.1), "checks": 50, "patience": 3}
    whole = build(SIZES, 0)
    expected = fit(whole, texts, held, 0, **s)
    assert expected.updates == 16 and expected.kept == 4

    def cut(update: int, seen: Any) -> None:
        if update == at:
            raise Cut

    with pytest.raises(Cut):
        fit(build(SIZES, 0), texts, held, 0, log=cut, checkpoints=Checkpoints(tmp_path, updates=1), **s)
    again = build(SIZES, 0)
    found = fit(again, texts, held, 0, checkpoints=Checkpoints(tmp_path, updates=1), **s)
    assert torch.equal(weights(again), weights(whole))
    assert found == expected


@pytest.mark.parametrize("updates, checks", [(12, 4), (7, 3), (5, 20), (1, 1)])
def test_checks_are_spread_evenly_and_the_last_is_at_the_end(updates: int, checks: int) -> None:
    held = HeldOut(texts_of(1, 0), checks)
    at = [u for u in range(updates) if held.is_check(u, updates)]
    assert len(at) == min(updates, checks) and at[-1] == updates - 1
    assert max(np.diff([-1, *at])) - min(np.diff([-1, *at])) <= 1


@pytest.mark.parametrize("wrong", [{"updates": 0}, {"chunk": 0}, {"checks": 0}, {"patience": 0}])
def test_counts_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}.* must be >= 1"):
        fit(build(SIZES, 0), texts_of(8, 0), texts_of(8, 1), 0, **wrong)


def test_what_a_resumed_training_goes_past_is_not_read(tmp_path: Path) -> None:
    texts, read = texts_of(8, 0), []

    def rows(picks: Any) -> Batch:
        read.append(len(picks))
        return texts.rows(picks)

    for updates_read in (6, 2):  # 4 of the second training's 6 updates are in the checkpoint
        order = permutations(stream(0, "batches", 0), 8, 4)
        found = sft(
            build(SIZES, 0), order, 6, OptimSettings(0.01), read=rows, checkpoints=Checkpoints(tmp_path, updates=4)
        )
        assert len(read) == updates_read and found.samples == 24
        read.clear()


# --- part of a vocabulary


def test_most_used_tokens_by_hand() -> None:
    tokens = np.array([[5, 5, 5, 1], [1, 2, 9, 9], [7, 7, 7, 7]])
    assert most_used(tokens, 3, always=[2], never=[7]).tolist() == [1, 2, 5]  # 1 and 9 tie: the smaller number
    assert most_used(tokens, 4, always=[0], never=[]).tolist() == [0, 1, 5, 7]
    with pytest.raises(InputError, match="a vocabulary of 9 needs"):
        most_used(tokens, 9, always=[], never=[])


def test_a_pruned_model_is_the_old_one_renormalised() -> None:
    model, kept = build(SmolLlama(30, 16, 2, 2, 1, 24, 16), 0), np.array([1, 4, 9, 16, 25])
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(8)
    small = cut_vocabulary(model, kept)
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (6, 8)))
    with torch.no_grad():
        expected = model(torch.from_numpy(kept)[rows]).logits[..., torch.from_numpy(kept)].log_softmax(-1)
        found = small(rows).logits.log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert small.num_parameters() == model.num_parameters() - 25 * 16


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [({}, "cuda:0"), ({"ALIGNFIRST_WORKER": "9"}, "cuda:1"), ({"ALIGNFIRST_WORKER": "9", "LOCAL_RANK": "2"}, "cuda:2")],
)
def test_processes_of_a_machine_take_its_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, numbers: dict[str, str], expected: str
) -> None:
    assert device.local_device() == "cpu" or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("LOCAL_RANK", "ALIGNFIRST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in numbers.items():
        monkeypatch.setenv(name, value)
    assert device.local_device() == expected


def test_tf32_is_asked_for_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    for there, expected in ((False, []), (True, ["high"])):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        device.enable_tf32()
        assert asked == expected


def test_a_batch_of_texts_ends_where_they_end() -> None:
    batch: Batch = Batch.of_arrays(np.array([1, 2]), np.array([[3, 4, 5], [6, 0, 0]], np.uint16), np.array([3, 1]))
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5], [1, 2, 6, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
