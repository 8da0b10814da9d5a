"""p_star: found, checked, cut to its vocabulary, and loaded again wherever it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.models.load import Loaded, Source, load, load_tokenizer, resolve, smollm2_gguf
from alignfirst.lm.models.surgery import cut_vocabulary, most_used
from alignfirst.lm.text.batch import Prompts
from alignfirst.lm.text.device import local_device
from alignfirst.lm.training.counters import size_of
from alignfirst.nodes import Artefact, Load, Node
from alignfirst.worlds.chain import streams
from alignfirst.worlds.chain.texts import draw_texts

PACKAGED = "packaged"


@dataclass(frozen=True)
class Truth:
    """What a stage must know of p_star without loading it. Token numbers are those of the vocabulary that was kept."""

    settings: Mapping[str, Any]
    commit: str
    prompt: NDArray[np.int64]  # [P]
    eos: int | None
    vocabulary: int
    kept: tuple[int, ...] | None  # token i is token kept[i] of the tokenizer

    @classmethod
    def of(cls, node: Node, load: Load) -> Truth:
        return cls.read(load(node.inputs["source"]))

    @classmethod
    def read(cls, artefact: Artefact) -> Truth:
        m = artefact.meta
        kept = tuple(artefact.arrays["kept"].tolist()) if "kept" in artefact.arrays else None
        return cls(m["settings"], m["commit"], artefact.arrays["prompt"], m["eos"], m["vocabulary"], kept)

    @property
    def prompts(self) -> Prompts:
        return Prompts.of_array(self.prompt[None], self.settings["length"], () if self.eos is None else (self.eos,))

    def model(self) -> Any:
        """p_star itself, in evaluation mode."""
        return _star(self.settings["source"], self.settings["revision"], self.settings["dtype"], self.commit, self.kept)

    def words(self, tokens: NDArray[Any], lengths: NDArray[Any]) -> list[str]:
        """Texts for the eye, without their prompt."""
        tokenizer = _tokenizer(self.settings["source"], self.settings["revision"], self.commit)
        rows = [row[:n].astype(int).tolist() for row, n in zip(tokens, lengths, strict=True)]
        if self.kept is not None:
            rows = [[self.kept[i] for i in row] for row in rows]
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))


def run_source(node: Node, load: Load) -> Artefact:
    """Find p_star, check that it is what the config says, and settle its vocabulary."""
    s = node.settings
    found = _load(s["source"], s["revision"], s["dtype"])
    prompt, eos = _prompt(found, s["prompt"]), _eos(found, s["ends"])
    _check(found, prompt, s)
    meta: dict[str, Any] = {"settings": _plain(s), "commit": found.resolved.commit, "flops": 0.0, "tokens": {}}
    if s["keep"] is None:
        return Artefact({"prompt": prompt}, meta | {"eos": eos, "vocabulary": s["expected"]["vocabulary"]})
    model = found.model.to(local_device())
    prompts = Prompts.of_array(prompt[None], s["length"])
    texts = draw_texts(model, prompts, s["counted"], streams.number(0, "counted"))
    tokens, spent = texts.tokens, texts.drawing_price(size_of(model))
    never = sorted({*found.tokenizer.all_special_ids} - {eos})  # type: ignore[union-attr]
    kept = most_used(tokens, s["keep"], [*prompt.tolist(), *([] if eos is None else [eos])], never)
    place = {int(token): i for i, token in enumerate(kept)}
    return Artefact(
        {"prompt": np.array([place[i] for i in prompt.tolist()]), "kept": kept},
        meta
        | {
            "eos": None if eos is None else place[eos],
            "vocabulary": len(kept),
            "covered": float(np.isin(tokens, kept).mean()),  # share of the counted tokens that are kept
            **spent.counted(),
        },
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k in ("source", "revision", "dtype", "length", "ends")}


def _source(name: str, revision: str | None) -> Source:
    return Source(str(smollm2_gguf())) if name == PACKAGED else Source(name, revision)


def _load(name: str, revision: str | None, dtype: str) -> Loaded:
    return load(_source(name, revision), dtype)


@lru_cache(maxsize=1)
def _star(name: str, revision: str | None, dtype: str, commit: str, kept: tuple[int, ...] | None) -> Any:
    found = _load(name, _pinned(revision, commit), dtype)
    _same(found.resolved.commit, commit, name)
    model = found.model if kept is None else cut_vocabulary(found.model, np.array(kept))
    return model.to(local_device()).requires_grad_(False)


@lru_cache(maxsize=1)
def _tokenizer(name: str, revision: str | None, commit: str) -> Any:
    resolved = resolve(_source(name, _pinned(revision, commit)))
    _same(resolved.commit, commit, name)
    return load_tokenizer(resolved)


def _pinned(revision: str | None, commit: str) -> str | None:
    """The commit that the first look resolved to, so that a branch that moves on moves nothing here."""
    return revision if commit.startswith("sha256:") else commit


def _same(now: str, then: str, name: str) -> None:
    if now != then:
        cure = "Put the old files back, or run the study in a new directory."
        raise StageFailure(f"p_star ({name}) has changed since this run began: {now}, not {then}. {cure}")


def _prompt(found: Loaded, prompt: str) -> NDArray[np.int64]:
    if found.tokenizer is None:
        raise InputError("p_star must have a tokenizer", str(found.resolved.path), "Name a directory that has one.")
    return np.array(found.tokenizer(prompt)["input_ids"], np.int64)


def _eos(found: Loaded, ends: bool) -> int | None:
    assert found.tokenizer is not None
    eos = found.tokenizer.eos_token_id if ends else None
    if ends and eos is None:
        raise InputError("p_star.ends needs a tokenizer with an end token", "none", "Set p_star.ends: false.")
    return eos if eos is None else int(eos)


def _check(found: Loaded, prompt: NDArray[np.int64], s: Mapping[str, Any]) -> None:
    """The numbers that a dry run counted with must be those of the model."""
    config = found.model.config
    real = {
        "parameters": found.model.num_parameters(),
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "vocabulary": config.vocab_size,
        "prompt_tokens": len(prompt),
    }
    for name, value in real.items():
        if value != s["expected"][name]:
            rule = f"p_star.{name} must be that of {s['source']}"
            raise InputError(rule, s["expected"][name], f"Set p_star.{name}: {value}.")
