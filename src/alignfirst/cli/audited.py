"""A model of the language-model room, as an audit asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignfirst.errors import InputError


class LanguageModel:
    """A model of the language-model room, as the audit's seam asks for it."""

    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self.loaded = name, loaded
        self.identity = loaded.resolved.commit
        self.limit: int | None = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)

    def score(self, rows: Any) -> Any:
        from alignfirst.lm.text.logprobs import score_rows

        return score_rows(self.loaded.model, rows)

    def sample(self, prompt: Sequence[int], count: int, new_tokens: int, seed: int) -> list[list[int]]:
        import importlib

        torch: Any = importlib.import_module("torch")
        from alignfirst.lm.sampling.sample import sample

        tokenizer = self.loaded.tokenizer
        drawn = sample(
            self.loaded.model,
            torch.tensor([list(prompt)] * count),
            new_tokens,
            torch.Generator().manual_seed(seed),
            eos=tokenizer.eos_token_id,
        )
        return [row[kept].tolist() for row, kept in zip(drawn.tokens, drawn.mask, strict=True)]


def load_model(name: str) -> LanguageModel:
    from alignfirst.lm.models.load import Source, load

    place, _, revision = name.rpartition("@")
    source = Source(place, revision) if place and not Path(name).exists() else Source(name)
    loaded = load(source)
    if loaded.tokenizer is None:
        raise InputError("an audited model needs its tokenizer", name, "Save the tokenizer beside the model.")
    return LanguageModel(name, loaded)
