"""Which side of the split the work on own models gets: training rows to train on, held-out ones to be measured on."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made

from alignfirst.lm.text.batch import Batch
from alignfirst.store import Store
from alignfirst.study.execution.worker import load_world
from alignfirst.study.plan.planner import plan_study
from alignfirst.worlds import trained as training
from alignfirst.worlds.user_models import draws, measure, work
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of

Seen = dict[str, set[tuple[int, ...]]]
REWARD = "def few_a(prompts, answers):\n    return [-float(a.split().count('a')) for a in answers]\n"
BOTH: dict[str, Any] = {
    "data.held_out": 0.5, "distil.prompts": 24, "measure.prompts": 24, "measure.samples": 24,
}  # fmt: skip
ON_PAIRS: dict[str, Any] = {
    "sft.steps": 4, "sft.batch": 8, "recipes": ["distil-align-rehearsed"], "distil.rehearsal": 0.9,
    "distil.samples": 32,
}  # fmt: skip
ON_REWARDS: dict[str, Any] = {
    "algorithms": "grpo", "reward.function": "own_reward:few_a", "recipes": ["distil-align"], "align.group_size": 4,
    "align.new_tokens": 4, "audit.samples": 2,
}  # fmt: skip


def of_batch(batch: Batch) -> set[tuple[int, ...]]:
    return {tuple(batch.text_ids(row)[0]) for row in range(len(batch))}


def spied(patch: pytest.MonkeyPatch) -> Seen:
    """The prompts that each kind of work is given, filled while it runs."""
    seen: Seen = defaultdict(set)
    sft, distil, align, describe, pairs_of = work.sft, work.distil, training.align, measure.describe, draws.pairs_of
    draw = measure.draw

    def fitted(model: Any, order: Any, *rest: Any, read: Any, **k: Any) -> Any:
        def told(picks: Any) -> Any:
            batch = read(picks)
            seen["sft"] |= of_batch(batch)
            return batch

        return sft(model, order, *rest, read=told, **k)

    def distilled(
        teacher: Any, student: Any, prompts: Any, s: Any, seed: int, rehearsal: Any, *a: Any, **k: Any
    ) -> Any:
        seen["distil"] |= {tuple(row.tolist()) for row in prompts.rows}
        if rehearsal is not None:
            seen["rehearsal"] |= of_batch(rehearsal)
        return distil(teacher, student, prompts, s, seed, rehearsal, *a, **k)

    def aligned(policy: Any, reference: Any, task: Any, *rest: Any, **k: Any) -> Any:
        seen["align"] |= {tuple(row.tolist()) for row in task.prompts.rows}
        if task.pairs is not None:
            seen["align"] |= of_batch(task.pairs.pool)
        return align(policy, reference, task, *rest, **k)

    def drawn(model: Any, prompts: Any, *rest: Any) -> Any:
        text = draw(model, prompts, *rest)
        seen[kind_of_draw[-1]] |= of_batch(text.batch)
        return text

    def described(models: Any, held: Any, *rest: Any) -> Any:
        seen["held pairs"] |= {tuple(row.prompt) for row in held}
        return describe(models, held, *rest)

    def audited(model: Any, rows: Any) -> Any:
        seen["audited pairs"] |= {tuple(row.prompt) for row in rows}
        return pairs_of(model, rows)

    kind_of_draw = ["measured"]
    run_draws = work.RUN["draw"]

    def for_an_audit(*given: Any) -> Any:
        kind_of_draw.append("audited")
        found = run_draws(*given)
        kind_of_draw.pop()
        return found

    patch.setattr(work, "sft", fitted)
    patch.setattr(work, "distil", distilled)
    patch.setattr(training, "align", aligned)
    patch.setattr(measure, "draw", drawn)
    patch.setattr(measure, "describe", described)
    patch.setattr(draws, "pairs_of", audited)
    patch.setattr(work, "RUN", {**work.RUN, "draw": for_an_audit})
    return seen


@pytest.mark.parametrize(
    ("more", "trained", "measured"),
    [
        (ON_PAIRS, {"sft", "distil", "rehearsal", "align", "audited pairs"}, {"held pairs", "measured"}),
        (ON_REWARDS, {"distil", "align", "audited pairs", "audited"}, {"held pairs", "measured"}),
    ],
    ids=["pairs", "rewards"],
)
def test_held_out_prompts_are_measured_on_and_never_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], trained: set[str], measured: set[str]
) -> None:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "_TEXTS", {})
    (tmp_path / "own_reward.py").write_text(REWARD)
    made.write(tmp_path / "pairs.jsonl", made.pairs(80))
    config = made.study(made.teacher(tmp_path / "teacher"), tmp_path / "pairs.jsonl", **BOTH, **more)
    world, store, known = load_world("hf"), Store(tmp_path / "store"), resolve_inputs(config)
    world.prepare(config, store)  # type: ignore[attr-defined]
    rows = rows_of(known.data, known.index, known.loaded_tokenizer)
    kept, held = ({tuple(r.prompt) for r in rows.read(rows.side(held=side))} for side in (False, True))
    assert not kept & held and len(held) > 10

    seen = spied(monkeypatch)
    for node in plan_study(config, world).nodes.values():
        if node.kind != "audit":
            (found,) = world.run([node], store.get)
            assert not hasattr(found, "reason"), found
            store.put_many([(node.key, found)])
    assert set(seen) == trained | measured
    for work_on, prompts in seen.items():
        allowed, chance = (held, len(kept)) if work_on in measured else (kept, len(held))
        assert prompts <= allowed, work_on
        share = chance / (len(kept) + len(held))
        assert (1 - share) ** len(prompts) < 1e-3, f"{work_on}: too few prompts to tell the sides apart"
