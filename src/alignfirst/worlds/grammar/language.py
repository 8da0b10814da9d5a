"""The ground truth of the grammar world: a mixture of Markov chains, with every log-probability exact.

Behaviour k is a first-order chain over words of its own. The *last* behaviour is the target; its words are disjoint
from those that the others draw theirs from. A prompt is one token, the mark of a vector of behaviour weights:
p_star(x | prompt) = sum_k w[prompt, k] p_k(x). All chains are smoothed over the whole vocabulary, so that whatever a
model writes has a finite log-probability. NumPy only; natural logs; N sequences of L tokens are tokens[N, L].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from alignfirst.worlds.grammar import streams

F64 = NDArray[np.float64]
Tokens = NDArray[np.int64]

TARGET_WORDS = [
    "rose",
    "lily",
    "iris",
    "fern",
    "moss",
    "reed",
    "clover",
    "daisy",
    "poppy",
    "violet",
    "thistle",
    "willow",
    "heather",
    "jasmine",
    "lotus",
    "orchid",
]
OTHER_WORDS = [
    "anvil",
    "barrel",
    "bell",
    "bolt",
    "brick",
    "cable",
    "chisel",
    "coin",
    "crane",
    "drill",
    "engine",
    "forge",
    "gear",
    "hammer",
    "hinge",
    "kettle",
    "ladder",
    "lamp",
    "lathe",
    "lever",
    "nail",
    "pipe",
    "plank",
    "pulley",
    "rivet",
    "rope",
    "saw",
    "shovel",
    "spring",
    "tongs",
    "valve",
    "wheel",
]


@dataclass(frozen=True)
class Chain:
    """First-order Markov chains, any number K of them in front: log_initial [K, V], log_transition [K, V, V]."""

    log_initial: F64
    log_transition: F64

    def forward(self, tokens: Tokens) -> F64:
        """log p_k of every prefix: tokens[N, L] -> [N, L, K]; the last one is the sequence."""
        first = self.log_initial[:, tokens[:, 0]].T[:, None]  # [N, 1, K]
        steps = self.log_transition[:, tokens[:, :-1], tokens[:, 1:]].transpose(1, 2, 0)  # [N, L - 1, K]
        return np.cumsum(np.concatenate([first, steps], axis=1), axis=1)

    def logp(self, tokens: Tokens) -> F64:
        """log p_k(x): tokens[N, L] -> [N, K]."""
        return np.asarray(self.forward(tokens)[:, -1])

    def sample(self, which: NDArray[np.int64], length: int, rng: Generator) -> Tokens:
        """One sequence of chain `which[n]` for every n: [N, length]."""
        u = rng.random((length, len(which)))
        out = np.empty((len(which), length), np.int64)
        out[:, 0] = _pick(self._initial[which], u[0])
        for t in range(1, length):
            out[:, t] = _pick(self._transition[which, out[:, t - 1]], u[t])
        return out

    def mean_of(self, other: Chain, length: int) -> F64:
        """E_{x~p_k} log other(x) over sequences of that length, exact, [K]: the expectation of a sum over positions."""
        at = np.exp(self.log_initial)  # [K, V], marginal of the token at a position
        step, transition = other.log_transition[0], np.exp(self.log_transition)
        total = at @ other.log_initial[0]
        here = (transition * step).sum(-1)  # [K, V], expected log-probability of the next token
        for _ in range(length - 1):
            total = total + (at * here).sum(-1)
            at = np.einsum("kv,kvu->ku", at, transition)
        return np.asarray(total)

    def at_temperature(self, temperature: float) -> Chain:
        """Every next-token distribution to the power 1 / temperature, normalised."""
        return Chain(*(log_softmax(x / temperature, axis=-1) for x in (self.log_initial, self.log_transition)))

    def only(self, k: int) -> Chain:
        return Chain(self.log_initial[k : k + 1], self.log_transition[k : k + 1])

    @cached_property
    def _initial(self) -> F64:
        return np.cumsum(np.exp(self.log_initial), axis=-1)

    @cached_property
    def _transition(self) -> F64:
        return np.cumsum(np.exp(self.log_transition), axis=-1)


@dataclass(frozen=True, eq=False)  # compared and hashed as the one object that `language` keeps
class Language:
    """K behaviours under P prompts. Words are tokens 0 .. words - 1; token words + p is the mark of prompt p."""

    chains: Chain
    log_weights: F64  # [P, K]
    length: int
    words: int
    own: int  # words a behaviour has

    @property
    def behaviours(self) -> int:
        return int(self.log_weights.shape[1])

    @property
    def prompts(self) -> int:
        return int(self.log_weights.shape[0])

    @property
    def vocabulary(self) -> int:
        return self.words + self.prompts

    @property
    def target(self) -> int:
        return self.behaviours - 1

    def marks(self, prompt: NDArray[np.int64]) -> Tokens:
        """What a model is prompted with: prompt[N] -> tokens [N, 1]."""
        return (self.words + prompt)[:, None]

    def log_joint(self, tokens: Tokens, prompt: NDArray[np.int64]) -> F64:
        """log w[prompt, k] p_k(x): [N, K]."""
        return np.asarray(self.chains.logp(tokens) + self.log_weights[prompt])

    def logp_star(self, tokens: Tokens, prompt: NDArray[np.int64]) -> F64:
        """log p_star(x | prompt): [N]."""
        return np.asarray(logsumexp(self.log_joint(tokens, prompt), axis=-1))

    def logp_target(self, tokens: Tokens) -> F64:
        """log p_target(x): [N]. The target chain is the same under every prompt."""
        return np.asarray(self.chains.only(self.target).logp(tokens)[:, 0])

    def posterior(self, tokens: Tokens, prompt: NDArray[np.int64]) -> F64:
        """p(behaviour | x, prompt): [N, K], rows sum to one."""
        return np.asarray(np.exp(log_softmax(self.log_joint(tokens, prompt), axis=-1)))

    def sample(self, prompt: NDArray[np.int64], rng: Generator) -> Tokens:
        """One sequence of p_star(. | prompt[n]) for every n: [N, L]."""
        which = _pick(np.cumsum(np.exp(self.log_weights), axis=-1)[prompt], rng.random(len(prompt)))
        return self.chains.sample(which, self.length, rng)

    def sample_target(self, n: int, rng: Generator) -> Tokens:
        """n sequences of p_target: [n, L]."""
        return self.chains.sample(np.full(n, self.target), self.length, rng)

    def balanced(self, n: int) -> NDArray[np.int64]:
        """n prompts, each as often as the others (to one): 0, 1, .., P - 1, 0, 1, .. [n]."""
        return np.arange(n) % self.prompts

    @cached_property
    def vocabulary_words(self) -> tuple[str, ...]:
        """Every token as a person reads it: flowers are the target's words, tools the others', <1> the first prompt."""
        others = self.words - self.own
        return (
            *_names(OTHER_WORDS, others),
            *_names(TARGET_WORDS, self.own),
            *(f"<{p + 1}>" for p in range(self.prompts)),
        )

    def text(self, tokens: NDArray[np.integer[Any]]) -> str:
        """One sequence as words."""
        return " ".join(self.vocabulary_words[int(t)] for t in tokens)


def language(settings: Mapping[str, Any]) -> Language:
    """The language of a node's settings `p_star`; built once a process."""
    return _language(json.dumps(settings, sort_keys=True))


@lru_cache(maxsize=16)
def _language(settings: str) -> Language:
    s = json.loads(settings)
    rng = streams.generator(s["language"], "language")
    others, target = np.arange(s["words"] - s["own"]), np.arange(s["words"] - s["own"], s["words"])
    vocabulary = s["words"] + len(s["target_weights"])
    initial, transition = [], []
    for k in range(s["behaviours"]):
        last = k == s["behaviours"] - 1
        words = target if last else np.sort(rng.choice(others, s["own"], replace=False))
        first, then = _chain(words, vocabulary, s["successors"], s["smoothing"], rng)
        initial.append(first)
        transition.append(then)
    weights = [_weights(s["behaviours"], w, s["zipf"], p) for p, w in enumerate(s["target_weights"])]
    chains = Chain(np.log(np.stack(initial)), np.log(np.stack(transition)))
    return Language(chains, np.log(np.stack(weights)), s["length"], s["words"], s["own"])


def _chain(words: Tokens, vocabulary: int, successors: int, smoothing: float, rng: Generator) -> tuple[F64, F64]:
    """Initial [V] and transition [V, V] probabilities. After a word of another behaviour a chain starts afresh."""
    start = np.zeros(vocabulary)
    start[words] = 1 / len(words)
    transition = np.repeat(start[None], vocabulary, axis=0)
    shares = np.arange(successors, 0, -1, dtype=float)  # 4, 3, 2, 1: every word has the same entropy
    for word in words:
        transition[word] = 0.0
        transition[word, rng.choice(words, successors, replace=False)] = shares / shares.sum()
    uniform = smoothing / vocabulary
    return (1 - smoothing) * start + uniform, (1 - smoothing) * transition + uniform


def _weights(behaviours: int, target_weight: float, exponent: float, prompt: int) -> F64:
    """Zipf over the others, in an order that moves on by one with every prompt; the target's weight last."""
    rank = (np.arange(behaviours - 1) + prompt) % (behaviours - 1) + 1
    others = rank.astype(float) ** -exponent
    return np.append((1 - target_weight) * others / others.sum(), target_weight)


def _pick(cumulative: F64, u: F64) -> NDArray[np.int64]:
    """Inverse of the distribution function: cumulative [N, M], u [N] -> [N]."""
    picked = (cumulative <= u[:, None]).sum(-1)
    return np.asarray(np.minimum(picked, cumulative.shape[-1] - 1), dtype=np.int64)  # rounding may end short of one


def _names(words: list[str], n: int) -> list[str]:
    return [words[i % len(words)] + (str(i // len(words) + 1) if i >= len(words) else "") for i in range(n)]
