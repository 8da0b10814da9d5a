"""Models stop where their turn ends: tiny models whose templates end turns as Gemma, Phi-3 and ChatML on a Qwen base
do, with another token than the tokenizer's, which is likely at every place. Answers drawn in a distillation, an
alignment, a measurement and an audit, and by the exported folder, are as long as those that transformers draws from
the model as it came, within sampling error; the export lists every end. Two minutes of one core.

    python acceptance/turns_1.py
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import ROOT, RUNS, conclude, fresh

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import own_models as made
import turn_models

NEW, LIKELY = 16, 0.2
ERRORS = 4.5  # standard errors that two means may lie apart: all 15 are within with probability 0.9999
REWARD = "def short(prompts, answers):\n    return [-float(len(a)) for a in answers]\n"
STAGES = ("distil", "align", "measure", "audit")
FIELDS = {"distil": "lm.distil.distillation", "align": "lm.align.rollouts", "measure": "worlds.user_models.measure",
          "audit": "worlds.user_models.audit_pieces"}  # fmt: skip
Lengths = dict[str, list[int]]


@contextmanager
def noted() -> Iterator[Lengths]:
    """Lengths of all answers that are drawn, by who draws them."""
    from importlib import import_module

    from alignfirst.lm.sampling.draw import draw_answers

    found: Lengths = {stage: [] for stage in STAGES}

    def noting(stage: str) -> Any:
        def draw(*given: Any, **more: Any) -> Any:
            drawn = draw_answers(*given, **more)
            found[stage] += drawn.batch.lengths.tolist()
            return drawn

        return draw

    modules = {stage: import_module(f"alignfirst.{name}") for stage, name in FIELDS.items()}
    for stage, module in modules.items():
        module.draw_answers = noting(stage)  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        for module in modules.values():
            module.draw_answers = draw_answers  # type: ignore[attr-defined]


def drawn(place: Path, folder: Path) -> Lengths:
    """Run a study of the model in `place`, whose trainings move hardly, and audit it; export its last model."""
    from alignfirst import api
    from alignfirst.study import runner
    from alignfirst.study.execution.options import ExecutionOptions

    (folder / "turns_reward.py").write_text(REWARD)
    data = made.write(folder / "pairs.jsonl", turn_models.chats())
    asked = [{"prompt": row["prompt"]} for row in turn_models.chats()[:16]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    config = made.study(place, data, **{
        "recipes": ["distil-align"], "algorithms": ["grpo"], "reward.function": "turns_reward:short",
        "student.layers": 4, "data.max_length": 120, "audit.prompts": 4, "audit.samples": 8,
        "distil.loss": "sequence", "distil.temperature": 1.0, "distil.learning_rate": 1e-6,
        "distil.samples": 512, "distil.new_tokens": NEW,
        "align.learning_rate": 1e-6, "align.updates": 16, "align.samples": 32, "align.group_size": 8,
        "align.chunk": 32, "align.new_tokens": NEW, "measure.samples": 512, "measure.new_tokens": NEW,
    })  # fmt: skip
    with noted() as found:
        done = runner.run(config, folder / "run", options=ExecutionOptions(workers=0))
        assert done.status == "complete", done
        api.audit(
            str(place), prompts=str(folder / "prompts.jsonl"), reward="turns_reward:short", samples=32, new_tokens=NEW
        )
    api.load(folder / "run").export("distil-align", folder / "exported")
    return found


def compared(family: str) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = fresh(RUNS / "turns-1" / family)
    folder.mkdir(parents=True)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.modules.pop("turns_reward", None)
    tokens = turn_models.tokenizer(family)
    ends = [int(tokens.eos_token_id), int(turn_models.end_of(family) or 0)]
    place = turn_models.teacher(folder / "teacher", family, LIKELY, generation=ends)
    found: dict[str, Any] = dict(drawn(place, folder))
    tokenizer = AutoTokenizer.from_pretrained(folder / "exported")
    chats = [row["prompt"] for row in turn_models.chats()[:16]]
    prompts = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for chat in chats
    ]
    means: dict[str, NDArray[Any]] = {}
    for name in (place, folder / "exported"):
        stops = GenerationConfig.from_pretrained(name).eos_token_id
        model = AutoModelForCausalLM.from_pretrained(name)
        means[name.name] = turn_models.generated_lengths(
            model, prompts, stops if isinstance(stops, list) else [stops], NEW
        )
    theirs = means.pop("teacher")
    wrong = []
    print(f"{family}: transformers draws {theirs.mean():.2f} of at most {NEW} tokens")
    for stage, lengths in (found | means).items():
        ours = np.array(lengths)
        error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs)) if len(ours) else np.nan
        off = (ours.mean() - theirs.mean()) / error
        print(f"  {stage:<9} {ours.mean():6.2f} in {len(ours)} answers, {off:+.1f} standard errors")
        if not (len(ours) >= 256 and abs(off) < ERRORS):
            wrong.append(f"{family}: {stage} draws {ours.mean():.2f} tokens, transformers {theirs.mean():.2f}")
    kept = GenerationConfig.from_pretrained(folder / "exported").eos_token_id
    return wrong + [f"{family}: the export ends at {kept}, not at {ends}"] * (sorted(kept) != sorted(ends))


def main() -> None:
    os.environ["ALIGNFIRST_CACHE"] = str(fresh(RUNS / "turns-1-cache"))
    conclude([failure for family in turn_models.DIFFERING for failure in compared(family)])


if __name__ == "__main__":
    main()
