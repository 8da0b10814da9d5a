"""What an audit draws of a transformer: its own texts, exact rewards, hits by the posterior of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alignfirst.errors import InputError
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.io import numpy_api
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.nodes import Artefact, Json
from alignfirst.world import AuditDraws, Drawn
from alignfirst.worlds.grammar.language import F64, Tokens, language
from alignfirst.worlds.grammar.work import AT_ONCE, model_of, reward_of

HIT = 0.5  # posterior of the target above which a text is the target's, as in training


class Drawing:
    """Draws from transformers of one study, scored under two of them. Log-probabilities are of whole texts."""

    target = f"texts whose posterior of the target is above {HIT:g}"
    sources = ("reference", "teacher", "preferred")

    def __init__(self, settings: Mapping[str, Json], reference: Artefact, teacher: Artefact) -> None:
        numpy_api.one_thread()
        self.lang = language(settings["p_star"])
        self.reward, self.timeout = reward_of(settings["reward"], self.lang), settings["reward"].get("timeout")
        self.prompts = Prompts.of_array(self.lang.marks(np.arange(self.lang.prompts)), self.lang.length)
        self.reference, self.teacher = reference, teacher
        self._built: dict[int, Any] = {}
        for artefact in (reference, teacher):
            self._check(artefact)

    @classmethod
    def noise(cls, seed: int, source: str) -> np.random.Generator:
        """The stream of one of `sources`: references of one seed are drawn from with the same numbers."""
        return np.random.default_rng([7, seed, cls.sources.index(source)])

    def sample(self, model: Artefact, n: int, random: np.random.Generator) -> Drawn:
        """n texts of a model, every prompt as often as the others; prompts are told apart where there are several."""
        prompt = self.lang.balanced(n)
        drawn = draw_answers(self._model(model), self.prompts, prompt, int(random.integers(2**62)), at_once=AT_ONCE)
        tokens = drawn.batch.response_array
        logp = [
            drawn.total_logp if scorer is model else score_batch(self._model(scorer), drawn.batch).sum(1)
            for scorer in (self.reference, self.teacher)
        ]
        posterior = self.lang.posterior(tokens, prompt)[:, self.lang.target]
        told_apart = prompt if self.lang.prompts > 1 else None
        return Drawn(self._rewards(tokens, prompt), posterior > HIT, logp[0], logp[1], told_apart)

    def preferred(self, n: int, random: np.random.Generator) -> F64:
        """Rewards of n texts of p_target."""
        return self._rewards(self.lang.sample_target(n, random), self.lang.balanced(n))

    def _rewards(self, tokens: Tokens, prompt: Tokens) -> F64:
        batch = Batch.of_arrays(self.lang.marks(prompt), tokens)
        return np.asarray(rewards_of(self.reward, batch, "the audit", self.timeout))

    def _model(self, artefact: Artefact) -> Any:
        if id(artefact) not in self._built:
            self._built[id(artefact)] = model_of(artefact)
        return self._built[id(artefact)]

    def _check(self, artefact: Artefact) -> None:
        vocab = artefact.meta["config"]["vocab"]
        if vocab != self.lang.vocabulary:
            cure = "Choose a teacher from a study with the same p_star."
            raise InputError(f"models must know the study's {self.lang.vocabulary} tokens", vocab, cure)


def draw(settings: Mapping[str, Json], reference: Artefact, teacher: Artefact | None) -> AuditDraws:
    """Draws of a reference and, unless it is its own teacher, of its teacher."""
    drawing = Drawing(settings, reference, reference if teacher is None else teacher)
    n, seed = settings["samples"], settings["seed"]
    own = drawing.sample(reference, n, drawing.noise(seed, "reference"))
    other = None if teacher is None else drawing.sample(teacher, n, drawing.noise(seed, "teacher"))
    return AuditDraws(own, other, drawing.preferred(n, drawing.noise(seed, "preferred")))
