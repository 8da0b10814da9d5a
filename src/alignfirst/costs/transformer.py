"""Floating-point operations of language models, by formula: two for every multiplication with a weight, attention too.

Counted as `torch.utils.flop_counter` counts them (which tests hold against it): matrix products alone, attention over
whole squares, and the head's logits twice where they are computed again in the backward pass. This is the one
definition of operations in the package. Kaplan et al. (2020, arXiv 2001.08361) count 2 a weight and token forward and 6
forward and back; what is added to that is attention over the past, and what is left out is the head where no logits
are asked for and the gradient of weights that stay as they are.

Letters: B texts (rows) of T tokens, prompt and padding included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alignfirst.costs.price import Price

# Logits of the head that are alive at a time: 8 MB in float32, which a processor's last cache holds. A training with
# more of them in one pass computes them twice (`lm.text.head`).
LOGITS_TILE = 1 << 21


@dataclass(frozen=True)
class TransformerSize:
    """What decides the cost of a model: weights in its layers and its head, and what attention works on."""

    body: int  # weights that every token is multiplied with, head and embeddings left out
    head: int  # weights
    vocabulary: int
    layers: int
    width: int  # heads x width of one
    parameters: int  # all weights, norms and embeddings too
    learned: float = 1.0  # share of the body's weights that have a gradient (adapters: few)
    learned_head: bool = True

    @classmethod
    def llama(
        cls, vocabulary: int, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int
    ) -> TransformerSize:
        """A Llama-style model whose input and output embeddings are one matrix."""
        width = hidden // heads
        block = 2 * hidden * width * (heads + kv_heads) + 3 * hidden * intermediate
        body, head, norms = layers * block, vocabulary * hidden, (2 * layers + 1) * hidden
        return cls(body, head, vocabulary, layers, heads * width, body + head + norms)

    def with_vocabulary(self, vocabulary: int) -> TransformerSize:
        """The same model with another number of tokens, input and output embeddings still one matrix."""
        head = self.head // self.vocabulary * vocabulary
        return replace(self, head=head, vocabulary=vocabulary, parameters=self.parameters - self.head + head)

    def with_adapters(self) -> TransformerSize:
        """The same model where adapters learn and its own weights do not. The adapters themselves are few."""
        return replace(self, learned=0.0, learned_head=False)

    def score(self, rows: float, length: float, predicted: float) -> Price:
        """Log-probabilities of texts [B, T] at `predicted` positions in all. The last token is predicted, not read."""
        return Price(scored=rows * length, scoring=self._forward(rows, length - 1, predicted))

    def train(self, rows: float, length: float, predicted: float, whole: bool = False) -> Price:
        """One pass forward and back over texts [B, T]. `whole`: with all logits of every predicted position kept."""
        read, back = length - 1, 1.0 + self.learned
        again = not whole and predicted > max(1, LOGITS_TILE // self.vocabulary)
        head = 2.0 + self.learned_head + again
        body = 2.0 * (1.0 + back) * self.body * rows * read
        training = body + 3.0 * self._attention(rows, read, read) + 2.0 * head * self.head * predicted
        return Price(trained=rows * length, training=training)

    def sample(self, rows: float, prompt: float, new: float) -> Price:
        """Drawing `new` tokens after prompts of `prompt` tokens each, with a cache of what came before."""
        steps = max(0, new - 1)
        read = self._attention(rows, prompt, prompt) + self._attention(rows, steps, prompt + new / 2)
        sampling = 2.0 * self.body * rows * (prompt + steps) + read + 2.0 * self.head * rows * new
        return Price(sampled=rows * (prompt + new), sampling=sampling)

    def _forward(self, rows: float, length: float, predicted: float) -> float:
        return 2.0 * self.body * rows * length + self._attention(rows, length, length) + 2.0 * self.head * predicted

    def _attention(self, rows: float, queries: float, keys: float) -> float:
        return 4.0 * self.layers * self.width * rows * queries * keys
