"""What an audit draws of a transformer: its own texts, exact rewards, hits by the posterior of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.auditing.pooled_draws import Sample
from alignfirst.errors import InputError
from alignfirst.lm.align.reward_calls import rewards_of
from alignfirst.lm.io import numpy_api
from alignfirst.lm.sampling.draw import draw_answers
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import score_batch
from alignfirst.nodes import Artefact, Json, Load, Node
from alignfirst.worlds.drawing import Drawing
from alignfirst.worlds.grammar.language import F64, Tokens, language
from alignfirst.worlds.grammar.models import AT_ONCE, model_of, reward_of

HIT = 0.5  # posterior of the target above which a text is the target's, as in training


class GrammarDrawing(Drawing):
    """Draws from transformers of one study, scored under two of them. Log-probabilities are of whole texts."""

    target = f"texts whose posterior of the target is above {HIT:g}"

    def __init__(self, settings: Mapping[str, Json], reference: Artefact, teacher: Artefact) -> None:
        numpy_api.one_thread()
        self.lang = language(settings["p_star"])
        self.reward, self.timeout = reward_of(settings["reward"], self.lang), settings["reward"].get("timeout")
        self.prompts = Prompts.of_array(self.lang.marks(np.arange(self.lang.prompts)), self.lang.length)
        self.reference, self.teacher = reference, teacher
        self._built: dict[int, Any] = {}
        for artefact in (reference, teacher):
            self._check(artefact)

    def sample(self, model: Artefact, n: int, random: np.random.Generator) -> Sample:
        """n texts of a model, every prompt as often as the others; prompts are told apart where there are several."""
        prompt = self.lang.balanced(n)
        drawn = draw_answers(self._model(model), self.prompts, prompt, int(random.integers(2**62)), at_once=AT_ONCE)
        tokens = drawn.batch.response_array
        logp = [
            drawn.total_logp if scorer is model else score_batch(self._model(scorer), drawn.batch).sum(1)
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


def run_draw(node: Node, load: Load) -> Artefact:
    """Draws of a reference and a teacher, with log-probabilities under both, for an audit of its own."""
    s, inputs = node.settings, node.inputs
    return GrammarDrawing(s, load(inputs["reference"]), load(inputs["teacher"])).artefact(s["samples"], s["seed"])


def audit_draws(settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
    """Draws of the model in a role and, unless it is its own teacher, of the sft model."""
    reference = load(inputs[role])
    teacher = reference if inputs[role] == inputs["sft"] else load(inputs["sft"])
    return GrammarDrawing(settings, reference, teacher).audit_draws(settings["samples"], settings["seed"])
