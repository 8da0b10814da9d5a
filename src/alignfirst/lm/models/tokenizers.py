"""Whether two tokenizers are the same, by everything that decides the tokens of a text: size alone proves nothing."""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignfirst.errors import shorten

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
RULES = ("normalizer", "pre_tokenizer", "post_processor")
PROBE = "\n".join(
    (
        "The quick brown fox, 3.14159 and 1,000,000; don't   split  me.\tTab",
        "Grüße aus Zürich, naïve café; Привет мир; 你好，世界; مرحبا; 🙂🙃",
        "def f(x):\n    return x ** 2  # code",
    )
)


def compare_tokenizers(a: PreTrainedTokenizerBase | None, b: PreTrainedTokenizerBase | None) -> list[str]:
    """Differences in words, empty when the two are interchangeable: vocabulary, merges and rules, special and added
    tokens, chat template. A tokenizer that is absent differs from one that is there."""
    if a is None or b is None:
        return [] if a is b else [f"only the {'second' if a is None else 'first'} model has a tokenizer"]
    found = _vocabulary(a.get_vocab(), b.get_vocab())
    for name in SPECIAL:
        if getattr(a, name, None) != getattr(b, name, None):
            found.append(f"{name}: {getattr(a, name, None)} and {getattr(b, name, None)}")
    added = [{i: str(t) for i, t in x.added_tokens_decoder.items()} for x in (a, b)]
    if added[0] != added[1]:
        differing = min(i for i in added[0].keys() | added[1].keys() if added[0].get(i) != added[1].get(i))
        found.append(f"added tokens: {differing} is {added[0].get(differing)!r} and {added[1].get(differing)!r}")
    found += _rules(a, b)
    if a.chat_template != b.chat_template:
        found.append(f"chat template: {_words(a.chat_template)} and {_words(b.chat_template)}")
    ids = [x(PROBE, add_special_tokens=True)["input_ids"] for x in (a, b)]
    if not found and ids[0] != ids[1]:  # a rule that no listing showed
        found.append("the same text gives other tokens")
    return found


def _vocabulary(a: dict[str, int], b: dict[str, int]) -> list[str]:
    if a == b:
        return []
    found = [] if len(a) == len(b) else [f"vocabulary size: {len(a)} and {len(b)}"]
    differing = sorted((t for t in a.keys() | b.keys() if a.get(t) != b.get(t)), key=lambda t: (a.get(t, b.get(t)), t))
    token = differing[0]
    found.append(f"vocabulary: {len(differing)} tokens differ, {shorten(token)!r} is {a.get(token)} and {b.get(token)}")
    return found


def _rules(a: Any, b: Any) -> list[str]:
    """Merges, and how a text is prepared and cut, of tokenizers that have a backend that tells."""
    if not (hasattr(a, "backend_tokenizer") and hasattr(b, "backend_tokenizer")):
        return [] if type(a) is type(b) else [f"kind: {type(a).__name__} and {type(b).__name__}"]
    x, y = (json.loads(t.backend_tokenizer.to_str()) for t in (a, b))
    found = [f"{rule} differs" for rule in RULES if x.get(rule) != y.get(rule)]
    models = [{k: v for k, v in t["model"].items() if k != "vocab"} for t in (x, y)]
    if models[0] != models[1]:
        keys = sorted(k for k in models[0].keys() | models[1].keys() if models[0].get(k) != models[1].get(k))
        found.append(f"{', '.join(keys)} of the {x['model'].get('type')} model differ")
    return found


def _words(template: Any) -> str:
    return "none" if template is None else f"{len(str(template))} characters"
