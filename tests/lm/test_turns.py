"""Where answers end: tokens that templates of real families write, drawn, trained and exported alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made
from transformers import AutoModelForCausalLM, GenerationConfig
from turn_models import DIFFERING, FAMILIES, chats, end_of, generated_lengths, teacher, tokenizer

from alignfirst.api import load
from alignfirst.cli.app import app
from alignfirst.data.rows import Message, TextRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.data.turns import Ends, ends_of, through, turn_end
from alignfirst.lm.models import named_models
from alignfirst.study import dry_run, runner
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_that_ends_a_turn_is_found_by_rendering(family: str) -> None:
    assert turn_end(tokenizer(family)) == end_of(family)


def test_a_word_that_nobody_declared_special_may_end_turns() -> None:
    spaced = made.tokenizer("{% for m in messages %}{{ m['content'] }} turn {% endfor %}", made.WORDS + " turn")
    assert turn_end(spaced) == spaced.convert_tokens_to_ids("turn")
    unknown = made.tokenizer("{% for m in messages %}{{ m['content'] }} nothing {% endfor %}")
    assert turn_end(unknown) is None  # a word that the tokenizer does not know ends nothing


def test_ends_are_the_union_each_with_who_names_it() -> None:
    tokens = tokenizer("gemma")
    eos, turn = tokens.eos_token_id, end_of("gemma")
    found = ends_of(tokens, [turn, 7])
    assert found == Ends(eos, turn, (turn, 7)) and found.ids == (eos, turn, 7) and not found.agree
    assert "'<eos>' (tokenizer), '<end_of_turn>' (chat template, generation config)" in found.words(tokens)
    assert Ends(3, 3, (3,)).agree and Ends(3, 3, (3,)).ids == (3,) and Ends(None, None).ids == ()
    assert Ends(3, None, (4,)).ids == (3, 4)


def test_generation_configs_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    folder = teacher(tmp_path / "a", "chatml", generation=[257, 256, 9999])
    assert named_models.generation_ends(named_models.found(str(folder))) == (257, 256)  # it has no token 9999
    bare = teacher(tmp_path / "b", "chatml")
    assert named_models.generation_ends(named_models.found(str(bare))) == ()
    config = json.loads((bare / "config.json").read_text()) | {"eos_token_id": [258]}
    (bare / "config.json").write_text(json.dumps(config))
    both = [named_models.found(str(place)) for place in (bare, folder)]
    assert AutoModelForCausalLM.from_pretrained(bare).generation_config.eos_token_id == [258]
    assert named_models.generation_ends(*both) == (258, 257, 256)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_end_with_the_turn_and_nothing_after_it(family: str) -> None:
    tokens, end = tokenizer(family), end_of(family)
    row = TextRow(1, (Message("user", "ab"),), (Message("assistant", "cde"),), (Message("assistant", "c"),))
    if family == "raises":
        with pytest.raises(Exception, match="good enough"):
            Tokeniser(tokens).rows([row])
        return
    [found] = Tokeniser(tokens).rows([row])
    both = [[{"role": m.role, "content": m.content} for m in (*row.prompt, *answer)] for answer in row[2:4]]
    for answer, chat in zip((found.chosen, found.rejected), both, strict=True):
        whole = tokens.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        assert whole[: len(found.prompt) + len(answer)] == found.prompt + answer
        left = tokens.decode(whole[len(found.prompt) + len(answer) :])
        assert left == {"phi-3": "\n<|endoftext|>", "gemma": "\n", "chatml": "\n"}.get(family, "")
        assert end is None or (answer[-1] == end and answer.count(end) == 1)


def test_turns_within_an_answer_stay() -> None:
    assert through([5, 1, 6, 1, 7], 1) == [5, 1, 6, 1] and through([5, 6], 1) == [5, 6] == through([5, 6], None)
    tokens = tokenizer("chatml")
    say = Message("assistant", "c")
    [found] = Tokeniser(tokens).rows([TextRow(1, (Message("user", "a"),), (say, Message("user", "b"), say), (say,))])
    assert found.chosen.count(end_of("chatml")) == 3 and found.chosen[-1] == end_of("chatml")


def test_the_preflight_says_what_was_taken(tmp_path: Path) -> None:
    data = made.write(tmp_path / "pairs.jsonl", chats())
    world = load_world("hf")
    for family in (*DIFFERING, "llama-2", "no token"):
        tokens = tokenizer(family)
        config = made.study(teacher(tmp_path / family, family), data, **{"data.max_length": 120})
        told = dry_run.preflight(config, world)
        says = f"answers end at any of '{tokens.eos_token}' (tokenizer), '{FAMILIES[family][3]}' (chat template)"
        assert (says in told.lines) == (family in DIFFERING)
        assert any("teach no model to stop" in w for w in told.warnings) == (family == "no token")


@pytest.mark.parametrize("family", DIFFERING)
def test_every_stage_stops_where_transformers_does_and_the_export_goes_on(family: str, tmp_path: Path) -> None:
    """Trainings move hardly: every model draws answers as long as the teacher's. Where only the tokenizer's end counted
    they would be twice as long."""
    place, new, other = teacher(tmp_path / "teacher", family, likely=0.2, generation=[65, 256]), 12, 65
    data = made.write(tmp_path / "pairs.jsonl", chats())
    still = {"distil.learning_rate": 1e-6, "align.learning_rate": 1e-6, "student.layers": 4, "data.max_length": 120}
    sizes = {"distil.new_tokens": new, "distil.samples": 256, "distil.loss": "sequence", "distil.steps": 2}
    sizes |= {"measure.new_tokens": new, "measure.samples": 256, "align.updates": 2}
    config = made.study(place, data, **{"recipes": ["distil-align"], **still, **sizes})
    known = resolve_inputs(config)
    wanted = (known.loaded_tokenizer.eos_token_id, end_of(family), other)
    assert set(known.ends.ids) == {*wanted, 256}
    assert runner.run(config, tmp_path / "run", options=ExecutionOptions(workers=0)).status == "complete"
    run = load(tmp_path / "run")
    asked = rows_of(known.data, known.index, known.loaded_tokenizer)
    prompts = [row.prompt for row in asked.read(asked.side(held=True)[:6])]
    theirs = generated_lengths(AutoModelForCausalLM.from_pretrained(place), prompts, list(known.ends.ids), new)
    spread = theirs.std() * np.sqrt(1 / 256 + 1 / len(theirs))
    assert theirs.mean() < 0.7 * new
    for row in run.records:
        assert abs(row["entropy"] / row["entropy_per_token"] - theirs.mean()) < 5 * spread, row["stage"]
    result = CliRunner().invoke(app, ["export", str(run.path), "distil-align", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert set(GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id) == {*wanted, 256}
