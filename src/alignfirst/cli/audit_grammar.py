"""Auditing a transformer of a grammar study: its own draws, exact rewards, and hits by the posterior of the target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.audit.draws import Sample
    from alignfirst.cli.audit_store import Found
    from alignfirst.worlds.protocol import Artefact

HIT = 0.5  # posterior of the target above which a text is the target's, as in training


class GrammarDrawing:
    """Draws from transformers of one study, scored under two of them. Log-probabilities are of whole texts."""

    target = f"texts whose posterior of the target is above {HIT:g}"
    sources = ("reference", "teacher", "preferred")

    def __init__(self, found: Found, reference: Artefact, teacher: Artefact) -> None:
        from alignfirst.lm import bridge
        from alignfirst.worlds.grammar.language import language
        from alignfirst.worlds.grammar.world import oracle, truth

        bridge.one_thread()
        self.lang = language(truth(found.config))
        self.settings = oracle(found.config)
        self.prompts = bridge.prompts_of(self.lang.marks(np.arange(self.lang.prompts)), self.lang.length)
        self._models: dict[int, Any] = {}
        self.reference, self.teacher = reference, teacher
        for artefact in (reference, teacher):
            self._check(artefact)

    @classmethod
    def noise(cls, seed: int, source: str) -> np.random.Generator:
        """The stream of one of `sources`: references of one seed are drawn from with the same numbers."""
        return np.random.default_rng([7, seed, cls.sources.index(source)])

    def sample(self, model: Artefact, n: int, random: np.random.Generator) -> Sample:
        """n texts of a model, every prompt as often as the others; prompts are told apart where there are several."""
        from alignfirst.audit.draws import Sample
        from alignfirst.lm import bridge

        prompt = self.lang.balanced(n)
        tokens, drawn = bridge.drawn(self._model(model), self.prompts, prompt, int(random.integers(2**62)))
        batch = bridge.batch_of(self.lang.marks(prompt), tokens)
        logp = [
            drawn if scorer is model else bridge.logp_of(self._model(scorer), batch)
            for scorer in (self.reference, self.teacher)
        ]
        posterior = self.lang.posterior(tokens, prompt)[:, self.lang.target]
        return Sample.of(
            self._rewards(tokens, prompt),
            posterior > HIT,
            logp_reference=logp[0],
            logp_teacher=logp[1],
            prompt=prompt if self.lang.prompts > 1 else None,
        )

    def preferred(self, n: int, random: np.random.Generator) -> Any:
        """Rewards of n texts of p_target."""
        return self._rewards(self.lang.sample_target(n, random), self.lang.balanced(n))

    def _rewards(self, tokens: Any, prompt: Any) -> Any:
        from alignfirst.worlds.grammar import oracle

        kind = self.settings["kind"]
        if ":" not in kind:
            return oracle.reward(self.lang, kind, self.settings.get("temperature", 1.0))(tokens, prompt)
        from alignfirst.lm import bridge
        from alignfirst.lm.guard import rewards_of
        from alignfirst.lm.reward import named
        from alignfirst.worlds.grammar.work import Decoder

        batch = bridge.batch_of(self.lang.marks(prompt), tokens)
        decoder: Any = Decoder(self.lang)
        return rewards_of(named(kind, decoder, Path()), batch, "the audit", self.settings.get("timeout"))

    def _model(self, artefact: Artefact) -> Any:
        from alignfirst.lm.load import TinyLlama, from_arrays

        if id(artefact) not in self._models:
            self._models[id(artefact)] = from_arrays(TinyLlama(**artefact.meta["config"]), artefact.arrays)
        return self._models[id(artefact)]

    def _check(self, artefact: Artefact) -> None:
        vocab = artefact.meta["config"]["vocab"]
        if vocab != self.lang.vocabulary:
            cure = "Choose a teacher from a study with the same p_star."
            raise InputError(f"models must know the study's {self.lang.vocabulary} tokens", vocab, cure)
