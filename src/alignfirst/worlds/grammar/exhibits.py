"""What the report may show of grammar models: a few texts, and how training went. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignfirst.nodes import Artefact, Json, as_float
from alignfirst.stats import curves
from alignfirst.worlds.grammar import oracle, streams
from alignfirst.worlds.grammar.language import Language, Tokens, language

TRUTH = 8  # texts of p_star that stand beside those of the models
CURVES = ("reward", "kl", "entropy", "target_share", "loss", "grad_norm")
DIGITS = 4


def exhibits(truth: Mapping[str, Any], reward: Mapping[str, Any], models: Mapping[str, Artefact]) -> dict[str, Json]:
    """Content of exhibits.json; its shape is documented in docs/exhibits.md."""
    lang = language(truth)
    score = None if ":" in reward["kind"] else oracle.reward(lang, reward["kind"], reward.get("temperature", 1.0))
    target = lang.chains.only(lang.target)
    return {
        "kind": "text",
        "length": lang.length,
        "prompts": [lang.text(mark) for mark in lang.marks(np.arange(lang.prompts))],
        "behaviours": [*(str(k + 1) for k in range(lang.target)), "target"],
        "weights": np.exp(lang.log_weights).round(6).tolist(),
        "target_behaviour": lang.target,
        "target_words": list(lang.vocabulary_words[lang.words - lang.own : lang.words]),
        "target_entropy": -float(target.mean_of(target, lang.length)[0]),
        "truth": shown(lang, score, lang.sample(lang.balanced(TRUTH), streams.generator(0, "texts"))),
        "models": {
            key: {
                "config": model.meta["config"],
                "texts": shown(lang, score, model.meta["texts"]),
                "curves": curves.shown(model.meta, CURVES),
            }
            for key, model in models.items()
        },
    }


def shown(
    lang: Language, score: oracle.Reward | None, texts: Sequence[Sequence[int]] | Tokens
) -> list[dict[str, Json]]:
    """Texts as words, with reward, likeliest behaviour, and the posterior of the target."""
    tokens, prompt = np.asarray(texts, np.int64), lang.balanced(len(texts))
    posterior = lang.posterior(tokens, prompt)
    rewards = None if score is None else score(tokens, prompt)
    return [
        {
            "prompt": int(prompt[i]),
            "text": lang.text(tokens[i]),
            "behaviour": int(posterior[i].argmax()),
            "target": round(float(posterior[i, lang.target]), DIGITS),
            "reward": None if rewards is None else as_float(round(float(rewards[i]), DIGITS)),
        }
        for i in range(len(tokens))
    ]
