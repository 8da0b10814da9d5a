"""Rewards and measurements of the grammar against closed forms and hand counts; no torch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from alignfirst.nodes import Artefact
from alignfirst.records import COLUMNS
from alignfirst.worlds import get
from alignfirst.worlds.grammar import exhibits, measure, oracle, streams
from alignfirst.worlds.grammar.language import Language, language

TRUTH: dict[str, Any] = {
    "behaviours": 6, "words": 48, "own": 16, "successors": 4, "smoothing": 0.02, "length": 16, "zipf": 1.0,
    "language": 0, "target_weights": [0.2, 0.6],
}  # fmt: skip
N = 4000


@pytest.fixture(scope="module")
def lang() -> Language:
    return language(TRUTH)


@pytest.fixture(scope="module")
def perfect(lang: Language) -> dict[str, Any]:
    """Measurements of p_star itself, as if it were a model."""
    prompt = lang.balanced(N)
    own = lang.sample(prompt, streams.generator(1, "own-samples"))
    star = lang.sample(prompt, streams.generator(2, "held-out"))
    target = lang.sample_target(N, streams.generator(3, "held-out"))
    texts = [measure.Text(x, prompt, lang.logp_star(x, prompt)) for x in (own, star, target)]
    rewards = oracle.reward(lang, "reflected", 0.8)(own, prompt)
    return measure.describe(lang, rewards, *texts, texts[0].logq, texts[0].logq - 0.25)


# --- reward


def test_target_text_is_worth_about_nothing_and_other_text_minus_one(lang: Language) -> None:
    score = oracle.reward(lang, "reflected", 0.8)
    target = lang.sample_target(N, streams.generator(4, "held-out"))
    which = np.arange(N) % (lang.behaviours - 1)
    others = lang.chains.sample(which, lang.length, streams.generator(5, "held-out"))
    prompt = lang.balanced(N)
    assert -0.06 < score(target, prompt).mean() < 0
    r = score(others, prompt)
    assert abs(r.mean() + 1) < 5 * r.std() / np.sqrt(N)
    scaled = oracle.reward(lang, "none", 0.8)(target, prompt)
    assert abs(scaled.mean()) < 5 * scaled.std() / np.sqrt(N)


def test_rewards_are_the_likelihood_by_hand(lang: Language) -> None:
    x, prompt = lang.sample_target(5, streams.generator(6, "held-out")), lang.balanced(5)
    hot = np.exp(np.r_[lang.chains.log_initial[5][None], lang.chains.log_transition[5]] / 0.8)
    hot /= hot.sum(-1, keepdims=True)
    by_hand = [np.log(hot[0, s[0]] * np.prod(hot[1 + s[:-1], s[1:]])) / 16 for s in x]
    likelihood = oracle.Likelihood.of(lang, 0.8)
    assert likelihood.per_token(x) == pytest.approx(by_hand, rel=1e-10)
    scaled = (np.array(by_hand) - likelihood.level) / (likelihood.level - likelihood.low)
    assert oracle.reward(lang, "none", 0.8)(x, prompt) == pytest.approx(scaled)
    assert oracle.reward(lang, "clip", 0.8)(x, prompt) == pytest.approx(np.minimum(scaled, 0))
    assert oracle.reward(lang, "reflected", 0.8)(x, prompt) == pytest.approx(-np.abs(scaled))
    assert oracle.reward(lang, "posterior", 0.8)(x, prompt) == pytest.approx(lang.posterior(x, prompt)[:, 5])


def test_text_that_is_too_likely_is_worth_less_when_reflected(lang: Language) -> None:
    """Following the likeliest successor for ever beats target text without reflection only."""
    x = np.zeros((1, 16), np.int64)
    x[0, 0] = 40
    for t in range(1, 16):
        x[0, t] = lang.chains.log_transition[5, x[0, t - 1]].argmax()
    assert oracle.reward(lang, "none", 0.8)(x, np.zeros(1, int))[0] > 0
    assert oracle.reward(lang, "reflected", 0.8)(x, np.zeros(1, int))[0] < -0.05


def test_the_reward_of_a_text_does_not_depend_on_the_targets_weight(lang: Language) -> None:
    one, other = (language(TRUTH | {"target_weights": [w, w]}) for w in (0.01, 0.2))
    x = one.sample(one.balanced(50), streams.generator(7, "held-out"))
    scores = [oracle.reward(v, "reflected", 0.8)(x, v.balanced(50)) for v in (one, other)]
    assert np.array_equal(*scores)


# --- measurements


def test_a_perfect_model_measures_as_p_star(lang: Language, perfect: dict[str, Any]) -> None:
    entropy, spread = perfect["entropy"], 16 * 0.6
    assert perfect["target_mass"] == pytest.approx(0.4, abs=5 * 0.5 / np.sqrt(N))
    assert perfect["overall_precision"] == pytest.approx(-entropy)
    assert perfect["overall_recall"] == pytest.approx(-entropy, abs=5 * spread / np.sqrt(N))
    target = lang.chains.only(5)
    own_entropy = float(target.mean_of(target, 16)[0])
    expected = own_entropy + (np.log(0.2) + np.log(0.6)) / 2  # q(x) = w p_target(x): the others cannot write it
    assert perfect["target_recall"] == pytest.approx(expected, abs=5 * spread / np.sqrt(N))
    assert perfect["coverage"] == {"10": 1.0, "100": 1.0, "1000": 1.0}
    assert perfect["kl_to_sft"] == 0 and perfect["kl_to_reference"] == pytest.approx(0.25)
    assert perfect["entropy_per_token"] == entropy / 16
    for name in ("target_precision", "target_recall", "overall_precision", "overall_recall"):
        assert perfect[f"{name}_per_token"] == perfect[name] / 16
    assert perfect["measured_on"] == N


def test_behaviours_have_their_own_weights(lang: Language, perfect: dict[str, Any]) -> None:
    expected = np.exp(lang.log_weights).mean(0)
    assert list(perfect["posterior"]) == ["1", "2", "3", "4", "5", "target"]
    assert list(perfect["posterior"].values()) == pytest.approx(expected, abs=5 * 0.5 / np.sqrt(N))
    assert sum(perfect["posterior"].values()) == pytest.approx(1, abs=1e-5)


def test_recall_is_told_per_prompt(lang: Language, perfect: dict[str, Any]) -> None:
    by_prompt = perfect["by_prompt"]
    target = lang.chains.only(5)
    for prompt, weight in (("1", 0.2), ("2", 0.6)):
        expected = float(target.mean_of(target, 16)[0]) + np.log(weight)
        assert by_prompt[prompt]["target_recall"] == pytest.approx(expected, abs=5 * 2.5 / np.sqrt(N / 2))
        assert by_prompt[prompt]["target_mass"] == pytest.approx(weight, abs=5 * 0.5 / np.sqrt(N / 2))
    for name in ("reward", "target_mass", "target_recall", "overall_recall"):
        assert np.mean([p[name] for p in by_prompt.values()]) == pytest.approx(perfect[name])


def test_one_prompt_has_no_table_of_prompts(lang: Language) -> None:
    single = language(TRUTH | {"target_weights": [0.2]})
    prompt = single.balanced(64)
    x = single.sample(prompt, streams.generator(1, "held-out"))
    text = measure.Text(x, prompt, single.logp_star(x, prompt))
    found = measure.describe(single, np.zeros(64), text, text, text, text.logq, None)
    assert found["by_prompt"] is None and "kl_to_reference" not in found


def test_every_measurement_has_a_column_and_is_json(perfect: dict[str, Any]) -> None:
    assert set(perfect) <= {c.name for c in COLUMNS}
    json.dumps(perfect, allow_nan=False)


def test_what_is_not_finite_becomes_null(lang: Language) -> None:
    prompt = lang.balanced(16)
    x = lang.sample(prompt, streams.generator(1, "held-out"))
    text = measure.Text(x, prompt, np.full(16, -np.inf))
    found = measure.describe(lang, np.full(16, np.nan), text, text, text, np.zeros(16), None)
    assert found["reward"] is None and found["target_recall"] is None
    json.dumps(found, allow_nan=False)


# --- exhibits


def model(curves: dict[str, Any], updates: int, **more: Any) -> Artefact:
    lang = language(TRUTH)
    texts = lang.sample(lang.balanced(4), streams.generator(8, "texts")).tolist()
    config = {"vocab": 50, "hidden": 8}
    return Artefact({}, {"config": config, "updates": updates, "curves": curves, "texts": texts, **more})


def test_exhibits_show_texts_as_words_and_curves_in_blocks(lang: Language) -> None:
    curves = {
        "reward": [float(u) for u in range(72)],
        "target_draws": [8.0 if u % 2 == 0 else None for u in range(72)],
        "grad_norm": [1.0] * 72,
    }
    models = {"a": model(curves, 72, drawn_an_update=32), "b": model({"loss": [3.0, 2.0]}, 2)}
    found = exhibits.exhibits(TRUTH, {"kind": "reflected", "temperature": 0.8}, models)
    json.dumps(found, allow_nan=False)
    assert found["kind"] == "text" and found["prompts"] == ["<1>", "<2>"]
    assert len(found["target_words"]) == 16 and "rose" in found["target_words"]
    assert found["behaviours"][found["target_behaviour"]] == "target"
    assert len(found["truth"]) == 8 and found["truth"][0].keys() == found["models"]["a"]["texts"][0].keys()
    drawn = found["models"]["a"]["curves"]
    assert len(drawn["update"]) == 36 and drawn["update"][-1] == 72
    assert drawn["reward"][:2] == [0.5, 2.5] and drawn["target_share"] == [0.25] * 36
    assert found["models"]["b"]["curves"] == {"update": [1.0, 2.0], "loss": [3.0, 2.0]}
    for i, shown in enumerate(found["models"]["a"]["texts"]):
        assert shown["prompt"] == i % 2 and len(shown["text"].split()) == 16
        flowers = sum(word in found["target_words"] for word in shown["text"].split())
        assert (flowers > 8) == (shown["target"] > 0.5) == (found["behaviours"][shown["behaviour"]] == "target")
        assert shown["reward"] == pytest.approx(0 if shown["target"] > 0.5 else -1, abs=0.3)


def test_rewards_of_a_users_function_are_left_out_of_exhibits() -> None:
    found = exhibits.exhibits(TRUTH, {"kind": "mine:f", "timeout": 1.0}, {"a": model({}, 1)})
    assert {text["reward"] for text in found["models"]["a"]["texts"]} == {None}


def test_the_world_can_be_asked_for_exhibits_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from alignfirst.worlds import get; get('grammar'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert get("grammar").name == "grammar"
