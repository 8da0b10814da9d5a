"""Where answers end: tokens that templates of real families write, drawn, trained and exported alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

sys.path.insert(0, str(Path(__file__).parent))
import own_models as made
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from alignfirst.api import load
from alignfirst.cli.app import app
from alignfirst.data.rows import Message, TextRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.data.turns import Ends, ends_of, through, turn_end
from alignfirst.lm.models import load as lm
from alignfirst.lm.models import named_models
from alignfirst.study import dry_run, runner
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.worker import load_world
from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
COMMAND_R = (
    "{% for m in messages %}<|START_OF_TURN|><|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|END_RESPONSE|>{% endif %}<|END_OF_TURN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN|><|assistant|>{% endif %}"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
RAISING = "{{ raise_exception('no conversation is good enough') }}"
# template -> the tokenizer's end, special tokens, the token that ends a turn
FAMILIES: dict[str, tuple[str, str, str, str | None]] = {
    "gemma": (GEMMA, "<eos>", "<bos> <start_of_turn> <end_of_turn>", "<end_of_turn>"),
    "phi-3": (PHI3, "<|endoftext|>", "<|user|> <|assistant|> <|end|>", "<|end|>"),
    "chatml": (CHATML, "<|endoftext|>", "<|im_start|> <|im_end|>", "<|im_end|>"),
    "llama-2": (LLAMA2, "</s>", "<s>", "</s>"),
    "command-r": (
        COMMAND_R,
        "<EOS>",
        "<|START_OF_TURN|> <|user|> <|assistant|> <|END_RESPONSE|> <|END_OF_TURN|>",
        "<|END_OF_TURN|>",
    ),
    "harmony": (HARMONY, "<|endoftext|>", "<|start|> <|message|> <|return|> <|end|>", "<|return|>"),
    "no token": (PLAIN, "<|endoftext|>", "", None),
    "raises": (RAISING, "<|endoftext|>", "", None),
}  # fmt: skip
DIFFERING = ("gemma", "phi-3", "chatml")


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, the family's special tokens and template."""
    template, eos, special, _ = FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bos = {"bos_token": special.split()[0]} if family in ("gemma", "llama-2") else {}
    found = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, **bos)
    found.add_special_tokens({"additional_special_tokens": special.split()})
    found.chat_template = template
    return found


def end_of(family: str) -> int | None:
    word = FAMILIES[family][3]
    return None if word is None else int(tokenizer(family).convert_tokens_to_ids(word))


def teacher(folder: Path, family: str, likely: float = 0.0, generation: Any = None) -> Path:
    """A tiny Llama that ends a turn with a probability of about `likely` a token, and no text otherwise."""
    tokens = tokenizer(family)
    sizes = lm.TinyLlama(
        len(tokens), hidden=16, layers=4, heads=2, kv_heads=1, intermediate=32, positions=128, tie=False
    )
    model = lm.build(sizes, 1)
    if likely:
        with torch.no_grad():  # one feature is the same everywhere, and only the head's row of the end token reads it
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
            model.model.embed_tokens.weight[:, 0] = 1.0
            model.lm_head.weight[:, 0] = 0.0
            size = float(np.sqrt(16.0))  # of the feature after the norm, as the others are small
            model.lm_head.weight[end_of(family), 0] = np.log(likely / (1 - likely) * len(tokens)) / size
    lm.save(model, folder, tokens)
    if generation is not None:
        GenerationConfig(eos_token_id=generation).save_pretrained(folder)
    return folder


def chats(n: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
            "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
        }
        for row in made.pairs(n)
    ]


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
    chats = [[{"role": m.role, "content": m.content} for m in (*row.prompt, *answer)] for answer in row[2:4]]
    for answer, chat in zip((found.chosen, found.rejected), chats, strict=True):
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


def lengths(model: Any, prompts: list[list[int]], ends: list[int], new: int) -> np.ndarray:
    """Of answers that transformers draws, the end token included."""
    torch.manual_seed(0)
    found = []
    for ids in prompts:
        settings = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=new, eos_token_id=ends, pad_token_id=0)
        drawn = model.generate(torch.tensor([ids] * 32), generation_config=settings)[:, len(ids) :]
        ended = torch.isin(drawn, torch.tensor(ends))
        found += torch.where(ended.any(1), ended.int().argmax(1) + 1, drawn.shape[1]).tolist()
    return np.array(found)


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
    theirs = lengths(AutoModelForCausalLM.from_pretrained(place), prompts, list(known.ends.ids), new)
    spread = theirs.std() * np.sqrt(1 / 256 + 1 / len(theirs))
    assert theirs.mean() < 0.7 * new
    for row in run.records:
        assert abs(row["entropy"] / row["entropy_per_token"] - theirs.mean()) < 5 * spread, row["stage"]
    result = CliRunner().invoke(app, ["export", str(run.path), "distil-align", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert set(GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id) == {*wanted, 256}
