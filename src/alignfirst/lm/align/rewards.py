"""Rewards of text: a Batch in, one number a row out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch, Floats
from alignfirst.lm.text.logprobs import response_logp
from alignfirst.user_code import find

Shape = Literal["reflect", "clip", "none"]


def shaped_likelihood(logp: Floats, level: float, shape: Shape) -> Floats:
    """What becomes of log-likelihoods per token, [B].

    Text that is likelier than typical target text is degenerate (repetition), so more is not better: `reflect` gives
    -|l - c| around the level c of typical text, `clip` min(l, c), `none` l itself.
    """
    if shape == "reflect":
        return -np.abs(logp - level)
    return np.minimum(logp, level) if shape == "clip" else logp


@dataclass(frozen=True)
class Likelihood:
    """Per-token log-likelihood under a target model, shaped around `level` (nats per token), divided by `scale`."""

    model: Any
    level: float
    shape: Shape = "reflect"
    scale: float = 1.0
    chunk: int | None = None
    name: str = "likelihood"

    def __post_init__(self) -> None:
        if self.shape not in ("reflect", "clip", "none"):
            raise InputError("shape must be reflect, clip or none", self.shape, "`reflect` is the default.")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError("scale must be a number > 0", self.scale, "Rewards are divided by it; 1 changes nothing.")

    def per_token(self, batch: Batch) -> Floats:
        """Mean log-probability of a response's own tokens, [B]; 0 for an empty one."""
        with torch.no_grad():
            parts = [response_logp(self.model, b).sum(1) for b in batch.chunks(self.chunk)]
        return np.asarray((torch.cat(parts) / batch.lengths.clamp(min=1)).double().cpu().numpy())

    def __call__(self, batch: Batch) -> Floats:
        return shaped_likelihood(self.per_token(batch), self.level, self.shape) / self.scale


def typical_level(model: Any, target_text: Batch, chunk: int | None = None) -> float:
    """The level c: mean log-likelihood per token, under the target model, of text that is as it should be."""
    return float(Likelihood(model, 0.0, chunk=chunk).per_token(target_text).mean())


@dataclass(frozen=True)
class TextReward:
    """A function of texts, `f(prompts, completions) -> numbers`, as a reward of token ids."""

    function: Callable[[list[str], list[str]], Any]
    tokenizer: Any
    name: str

    def __call__(self, batch: Batch) -> Any:
        prompts, completions = texts(batch, self.tokenizer)
        return self.function(prompts, completions)


def texts(batch: Batch, tokenizer: Any) -> tuple[list[str], list[str]]:
    """Prompts and responses as text, without special tokens."""
    ids = [batch.text_ids(row) for row in range(len(batch))]
    return (
        tokenizer.batch_decode([p for p, _ in ids], skip_special_tokens=True),
        tokenizer.batch_decode([r for _, r in ids], skip_special_tokens=True),
    )


def named(spec: str, tokenizer: Any, directory: Path | None = None) -> TextReward:
    """The function that a config names as `module:function`, of the module in `directory` or else an installed one.

    Nothing else is imported from `directory`. Importing a module runs it, so `spec` may only come from a config that
    the user wrote, never from a model, a data set or a store. Raises InputError when there is no such function.
    """
    return TextReward(find(spec, directory), tokenizer, spec)


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier's raw score (one logit) or the log-probability of one of its labels."""

    model: Any
    own_tokenizer: Any
    tokenizer: Any  # of the policy
    label: int | None = None
    chunk: int = 32
    name: str = "classifier"

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Floats:
        prompts, completions = texts(batch, self.tokenizer)
        whole = [p + c for p, c in zip(prompts, completions, strict=True)]
        parts = [self._score(whole[a : a + self.chunk]) for a in range(0, len(whole), self.chunk)]
        return np.asarray(torch.cat(parts).double().cpu().numpy())

    def _score(self, whole: list[str]) -> torch.Tensor:
        inputs = self.own_tokenizer(whole, return_tensors="pt", padding=True, truncation=False)
        logits = self.model(**inputs.to(self.model.device)).logits.float()
        return logits[:, 0] if self.label is None else logits.log_softmax(-1)[:, self.label]


def classifier(path: str, tokenizer: Any, label: str | int | None = None, revision: str | None = None) -> Classifier:
    """Load a Hugging Face sequence classifier. One with several labels needs the name of the one that is wanted.

    Its files are checked as those of any model. Raises InputError, also where it has no tokenizer.
    """
    from alignfirst.lm.models.load import Source, load

    found = load(Source(path, revision), head="classifier")
    model, own = found.model, found.tokenizer
    if own is None:
        raise InputError("a classifier needs its tokenizer", path, "Save the tokenizer beside it.")
    if own.pad_token is None:
        own.pad_token = own.eos_token
        model.config.pad_token_id = own.pad_token_id
    return Classifier(model, own, tokenizer, _label(model.config, label), name=f"classifier {path}")


def classifier_of(name: str, commit: str, label: str | None, tokenizer: Any) -> Classifier:
    """The sequence classifier that a study names, by `classifier`, if it is still the one that `commit` identified.

    Raises InputError where it is another by now, or has no such label.
    """
    from alignfirst.lm.models.named_models import identified

    place = identified(name, commit)
    return replace(classifier(str(place.path), tokenizer, label), name=f"classifier {name}")


def _label(config: Any, label: str | int | None) -> int | None:
    names = {name: int(i) for i, name in config.id2label.items()}
    if label is None:
        if config.num_labels > 1:
            cure = f"Name one of {', '.join(names)}."
            raise InputError("a classifier with several labels needs the one that is wanted", None, cure)
        return None
    index = label if isinstance(label, int) else names.get(label)
    if index is None or not 0 <= index < config.num_labels:
        raise InputError("the label must be one of the classifier's", label, f"It has {', '.join(names)}.")
    return index
