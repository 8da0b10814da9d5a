"""Drawing text from a model: seeded, with the log-probabilities of what was drawn.

Both loops turn the same uniform numbers into tokens by the inverse of the cumulative distribution, so that they draw
the same tokens up to rounding, and a row's draws do not depend on the rows beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.sampling.fast_llama import Stepper, fits
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.theory.drawing_filters import DrawingFilter, parse_filter

OWN_WEIGHTS = 20_000_000  # up to here the own loop, which copies them, is faster than `generate`
OWN_POSITIONS = 64  # likewise: its attention is made for short texts
SMALL = 1024  # vocabulary whose softmax is as good in float32
Loop = Literal["auto", "own", "generate"]


@dataclass(frozen=True)
class Samples:
    """`tokens`, `logp`, `mask`: [B, new]. `mask` is True up to and with the end token; beyond it tokens repeat the end
    token and logp is 0. `logp` (float32) is of the distribution drawn from, tempered and filtered as asked.
    `forward`: their forward pass, where it was asked for and the own loop drew from a small vocabulary."""

    tokens: Tensor
    logp: Tensor
    mask: Tensor
    forward: SavedForward | None = None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Tensor,
    new_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    ends: Sequence[int] = (),
    *,
    filtered: str | None = None,
    loop: Loop = "auto",
    keep: bool = False,
    mask: Tensor | None = None,
) -> Samples:
    """Draw up to `new_tokens` (>= 1) tokens after each of `prompts[B, P]` (int64, B, P >= 1).

    They come from softmax(logits / temperature), temperature > 0. With `filtered` (`NAME=NUMBER` of
    `theory.drawing_filters`, such as top_p=0.9) from that distribution cut to the tokens that the filter keeps and
    renormalised; without it nothing is filtered, and the model's generation config is never read. A token of
    `ends` ends a row. `generator` (on the CPU) gives B x new_tokens uniform numbers, row by row: two halves of a
    batch, one after the other, draw what the whole would. `mask[B, P]` is 0 on padding, which stands in front of
    shorter prompts and changes no position; not in the own loop. `loop`: the one for small Llama-style models ("own"),
    that of transformers ("generate"), or whichever is faster. `keep` asks for the forward pass (`Samples.forward`).

    Raises InputError for impossible requests, StageFailure when the model's logits are not finite.
    """
    _check(model, prompts, new_tokens, temperature, loop)
    uniforms = torch.rand(len(prompts), new_tokens, dtype=torch.float64, generator=generator)
    keep = keep and temperature == 1.0 and filtered is None and model.config.get_text_config().vocab_size <= SMALL
    draw = _Draw(uniforms.T.contiguous().to(prompts.device), temperature, keep, filtered)
    own = mask is None and (loop == "own" or (loop == "auto" and steps_itself(model, prompts.shape[1] + new_tokens)))
    training = model.training
    model.eval()
    try:
        if own:
            step = _own_loop(model, prompts, draw, ends)
        else:
            _generate(model, prompts, torch.ones_like(prompts) if mask is None else mask.long(), draw, ends)
    finally:
        model.train(training)
    samples = draw.samples(ends)
    if not (own and keep):
        return samples
    return replace(samples, forward=SavedForward(model, step, draw.probabilities, samples.tokens, samples.logp))


class _Draw(LogitsProcessor):
    """Turns logits [B, V] into tokens [B], one column of uniform numbers a step, and remembers both.

    As a processor of `generate` it leaves one token possible, so that greedy choice takes it.
    """

    def __init__(self, uniforms: Tensor, temperature: float, keep: bool = False, filtered: str | None = None) -> None:
        self.uniforms, self.temperature, self.keep = uniforms, temperature, keep
        self.filter = None if filtered is None else parse_filter(filtered)
        self.probabilities: list[Tensor] = []  # [B, V], where they are kept
        self.tokens: list[Tensor] = []
        self.logp: list[Tensor] = []

    def draw(self, logits: Tensor) -> Tensor:
        if self.temperature != 1.0:
            logits = logits / self.temperature
        # a float32 sum over a large vocabulary would bias rare tokens
        p = logits.softmax(-1, dtype=torch.float64 if logits.shape[-1] > SMALL else None)
        if self.filter is not None:
            p = cut_to_filter(p, *self.filter)
        total = p.cumsum(-1, dtype=torch.float64)
        at = self.uniforms[len(self.tokens)][:, None] * total[:, -1:]
        chosen = torch.searchsorted(total, at, right=True).clamp_(max=p.shape[-1] - 1)
        if self.keep:
            self.probabilities.append(p)
        self.logp.append(p.gather(-1, chosen)[:, 0])
        self.tokens.append(chosen[:, 0])
        return chosen[:, 0]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self.draw(scores)
        return torch.full_like(scores, -math.inf).scatter_(1, chosen[:, None], 0.0)

    def samples(self, ends: Sequence[int]) -> Samples:
        steps, batch = self.uniforms.shape
        tokens = torch.stack(self.tokens, 1)
        logp = torch.stack(self.logp, 1).log()
        if not bool(torch.isfinite(logp).all()):
            raise StageFailure("the model's logits are not finite: it has diverged")
        if not ends:
            return Samples(tokens, logp.float(), torch.ones_like(tokens, dtype=torch.bool))
        ended = _is_end(tokens, ends).int()
        mask = ended.cumsum(1) - ended == 0
        tokens, logp = tokens.masked_fill(~mask, ends[0]), logp.masked_fill(~mask, 0.0)
        rest = steps - tokens.shape[1]  # all rows ended before
        if rest:
            tokens = torch.cat([tokens, tokens.new_full((batch, rest), ends[0])], 1)
            logp = torch.cat([logp, logp.new_zeros(batch, rest)], 1)
            mask = torch.cat([mask, mask.new_zeros(batch, rest)], 1)
        return Samples(tokens, logp.float(), mask)


def cut_to_filter(p: Tensor, rule: DrawingFilter, number: float) -> Tensor:
    """Probabilities [B, V] of the tokens that a filter keeps, 0 for the others; of equal ones the smaller id stays."""
    ordered, index = p.sort(dim=-1, descending=True, stable=True)
    ordered = ordered * rule.keeps(ordered, number)
    return torch.zeros_like(p).scatter_(-1, index, ordered / ordered.sum(-1, keepdim=True))


def _own_loop(model: Any, prompts: Tensor, draw: _Draw, ends: Sequence[int]) -> Stepper:
    steps = len(draw.uniforms)
    step = Stepper(model, len(prompts), prompts.shape[1] + steps - 1, draw.keep)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    for n in range(prompts.shape[1]):
        step.advance(prompts[:, n])
    for n in range(steps):
        tokens = draw.draw(step.logits())
        if ends:
            ended |= _is_end(tokens, ends)
            if bool(ended.all()):
                break
        if n + 1 < steps:
            step.advance(tokens)
    return step


def steps_itself(model: Any, positions: int) -> bool:
    """Whether the own loop draws texts of so many tokens faster than `generate`."""
    return positions <= OWN_POSITIONS and model.num_parameters() <= OWN_WEIGHTS and fits(model)


def _generate(model: Any, prompts: Tensor, mask: Tensor, draw: _Draw, ends: Sequence[int]) -> None:
    own_settings = model.generation_config
    model.generation_config = GenerationConfig()  # its penalties and cuts would change the distribution
    settings = GenerationConfig(
        max_new_tokens=len(draw.uniforms),
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=ends[0] if ends else 0,
    )
    try:
        model.generate(
            prompts,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([draw]),
        )
    finally:
        model.generation_config = own_settings


def _is_end(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    return (tokens[..., None] == torch.tensor(list(ends), device=tokens.device)).any(-1)


def _check(model: Any, prompts: Tensor, new_tokens: int, temperature: float, loop: str) -> None:
    if prompts.ndim != 2 or not prompts.shape[0] or not prompts.shape[1] or prompts.is_floating_point():
        cure = "Give every row at least one token, for example the BOS token."
        raise InputError("prompts are token ids [B, P] with B, P >= 1", f"{prompts.dtype} {tuple(prompts.shape)}", cure)
    if new_tokens < 1:
        raise InputError("new_tokens must be >= 1", new_tokens, "Ask for a token.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError("temperature must be > 0 and finite", temperature, "For a near-greedy draw use 0.01.")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and prompts.shape[1] + new_tokens - 1 > limit:
        words = f"{prompts.shape[1]} + {new_tokens} tokens"
        raise InputError(f"prompt and answer fit the model's {limit} positions", words, "Ask for fewer tokens.")
    if loop == "own" and not fits(model):
        raise InputError("the own loop draws from Llama-style models", type(model).__name__, "Use loop='auto'.")
