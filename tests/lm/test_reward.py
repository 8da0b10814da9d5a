"""Rewards: what they say of text, and what becomes of those that do not answer as they should."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.align.reward_calls import call_with_timeout, checked, rewards_of
from alignfirst.lm.align.rewards import Classifier, Likelihood, classifier, named, shaped_likelihood, typical_level
from alignfirst.lm.align.trl_trainer import id_tokenizer
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.logprobs import score_batch

BATCH = Batch.of_rows([([0], [i, i + 1, 3][: 1 + i % 3]) for i in range(6)])
GOOD = np.arange(6) / 10


# -- guard ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [GOOD, GOOD.astype(np.float32), torch.tensor(GOOD), list(GOOD), [True, 0, 1, 0, 1, 1]]
)
def test_any_list_of_numbers_is_a_reward(answer):
    out = rewards_of(lambda batch: answer, BATCH, "update 0")
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, np.array([float(x) for x in answer]), rtol=1e-6)


def with_bad(value, row=3):
    return [value if i == row else 0.0 for i in range(6)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, "0.5", None, [1.0], 10**400, 1j])
def test_a_bad_value_is_named_with_its_row(value):
    with pytest.raises(StageFailure, match=r"row 3 at update 7 \(prompt \[0\], response \[3\]\); it must be a finite"):
        rewards_of(lambda batch: with_bad(value), BATCH, "update 7")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([0.0] * 4, "4 values for 6 rows at here: none for row 4"),
        ([0.0] * 9, "9 values for 6 rows at here: row 6 does not exist"),
        ("good", "one number a row, got str"),
        (None, "one number a row, got NoneType"),
        (3.0, "one number a row, got float"),
        (np.zeros((6, 1)), r"of shape \(6, 1\)"),
        ({"a": 1}, "one number a row, got dict"),
    ],
)
def test_a_wrong_length_or_type_is_named(answer, words):
    with pytest.raises(StageFailure, match=words):
        rewards_of(lambda batch: answer, BATCH, "here")


def test_an_exception_is_traced_to_its_row():
    def picky(batch: Batch) -> list[float]:
        if (batch.responses[:, 0] == 4).any():
            raise ValueError("no fours")
        return [0.0] * len(batch)

    with pytest.raises(StageFailure, match=r"picky raised ValueError: no fours for row 4 at update 2") as e:
        rewards_of(picky, BATCH, "update 2")
    assert isinstance(e.value.__cause__, ValueError)


def test_an_exception_of_the_batch_alone_says_so():
    def moody(batch: Batch) -> list[float]:
        if len(batch) > 1:
            raise SystemExit("bye")
        return [0.0]

    with pytest.raises(
        StageFailure, match="SystemExit: bye for rows 0 to 5 together at update 2, for none of them alone"
    ):
        rewards_of(moody, BATCH, "update 2")


def test_a_hang_is_stopped_and_traced_to_its_row():
    def sleepy(batch: Batch) -> list[float]:
        while (batch.responses[:, 0] == 2).any():
            try:
                time.sleep(60)
            except Exception:
                continue  # swallows everything it can
        return [0.0] * len(batch)

    begin = time.monotonic()
    with pytest.raises(StageFailure, match=r"gave no answer within 0.2 s for row 2 at update 1"):
        rewards_of(sleepy, BATCH, "update 1", timeout=0.2)
    assert time.monotonic() - begin < 10


def test_a_timeout_works_outside_the_main_thread_too():
    caught = []

    def work() -> None:
        try:
            call_with_timeout(0.1, lambda: time.sleep(1))
        except BaseException as e:
            caught.append(type(e).__name__)
        caught.append(call_with_timeout(5.0, lambda: "quick"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == ["Timeout", "quick"]


def test_an_interrupt_stays_an_interrupt():
    def interrupted(batch: Batch) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewards_of(interrupted, BATCH, "update 0")


def test_hostile_text_cannot_flood_the_message():
    with pytest.raises(StageFailure) as e:
        checked(["x" * 100_000 + "\x1b[2J"] * 3, 3, "r", "here")
    assert len(str(e.value)) < 300 and "\x1b" not in str(e.value)


# -- likelihood -----------------------------------------------------------------------------------------------------


MODEL = build(TinyLlama(12, 16, 1, 2, 2, 32, 8), 3)


def test_shapes():
    logp = np.array([-3.0, -2.0, -0.5])
    np.testing.assert_allclose(shaped_likelihood(logp, -2.0, "reflect"), [-1.0, 0.0, -1.5])
    np.testing.assert_allclose(shaped_likelihood(logp, -2.0, "clip"), [-3.0, -2.0, -2.0])
    np.testing.assert_allclose(shaped_likelihood(logp, -2.0, "none"), logp)


def test_likelihood_is_a_mean_over_a_responses_own_tokens():
    mean = score_batch(MODEL, BATCH).sum(1) / BATCH.lengths.numpy()
    for chunk in (None, 2):
        reward = Likelihood(MODEL, level=-2.5, scale=2.0, chunk=chunk)
        np.testing.assert_allclose(reward(BATCH), -np.abs(mean + 2.5) / 2, atol=1e-6)
    assert typical_level(MODEL, BATCH) == pytest.approx(mean.mean(), abs=1e-6)


@pytest.mark.parametrize("bad", [{"shape": "bend"}, {"scale": 0.0}, {"scale": np.nan}])
def test_impossible_likelihoods_are_refused(bad):
    with pytest.raises(InputError):
        Likelihood(MODEL, 0.0, **bad)


# -- functions of text, classifiers -----------------------------------------------------------------------------------


def test_a_function_named_in_the_config_gets_texts(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "own_reward_xyz", raising=False)
    body = "return [len((p + ' ' + c).split()) for p, c in zip(prompts, completions)]"
    (tmp_path / "own_reward_xyz.py").write_text(f"def words(prompts, completions):\n    {body}\n")
    before = list(sys.path)
    reward = named("own_reward_xyz:words", id_tokenizer(12, (11,)), tmp_path)
    assert sys.path == before
    longer = Batch.of_rows([([1, 2], [3, 4, 5]), ([1], [2])])
    np.testing.assert_allclose(rewards_of(reward, longer, "update 0"), [5, 2])
    assert reward.name == "own_reward_xyz:words"


@pytest.mark.parametrize("spec", ["math", ":sqrt", "math:", "no_such_module_abc:f", "math:no_such", "math:pi"])
def test_a_function_that_is_none_is_refused(spec):
    with pytest.raises(InputError):
        named(spec, None)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Tiny sequence classifiers on disk, by number of labels."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    paths = {}
    for labels in (1, 3):
        torch.manual_seed(labels)
        config = LlamaConfig(
            vocab_size=13, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_labels=labels, pad_token_id=0, max_position_embeddings=16,
        )  # fmt: skip
        paths[labels] = tmp_path_factory.mktemp("classifier")
        LlamaForSequenceClassification(config).save_pretrained(paths[labels])
        id_tokenizer(12, ()).save_pretrained(paths[labels])
    return paths


def test_a_classifier_scores_prompt_and_answer(classifiers):
    batch = Batch.of_rows([([1, 2], [3, 4]), ([5, 6], [7]), ([8], [9, 10, 11])])
    policy_tokenizer = id_tokenizer(12, ())

    class Spaced:
        """Word tokenizers drop the space between prompt and answer."""

        def batch_decode(self, ids, **rest):
            return [text + " " for text in policy_tokenizer.batch_decode(ids, **rest)]

    one = classifier(str(classifiers[1]), Spaced())
    ids = [torch.tensor([p + r]) for p, r in (batch.text_ids(i) for i in range(3))]
    with torch.no_grad():
        expected = [float(one.model(input_ids=x).logits[0, 0]) for x in ids]
    np.testing.assert_allclose(one(batch), expected, atol=1e-5)
    small = Classifier(one.model, one.own_tokenizer, Spaced(), chunk=2)
    np.testing.assert_allclose(small(batch), expected, atol=1e-5)
    three = classifier(str(classifiers[3]), Spaced(), label="LABEL_2")
    assert (rewards_of(three, batch, "update 0") < 0).all()


def test_a_classifier_with_several_labels_needs_one(classifiers):
    with pytest.raises(InputError, match="LABEL_0, LABEL_1, LABEL_2"):
        classifier(str(classifiers[3]), None)
    with pytest.raises(InputError, match="one of the classifier's"):
        classifier(str(classifiers[3]), None, label="nice")
