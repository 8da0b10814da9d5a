"""Log-probabilities of given text under a causal LM, in nats; only `next_token_logp` makes a [B, L, V] tensor.

`response_logp` and `token_logp` work on padded batches and carry gradients, for training; `score_batch` gives the same
as numbers. `score_rows` works on rows of any length as one flat stream, for measuring: no padding, a prompt computed
once for all its responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignfirst.costs.transformer import LOGITS_TILE
from alignfirst.errors import InputError
from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.head import parts, target_logp
from alignfirst.lm.text.packed import Stream, Unsupported, attending, row_length

Row = tuple[Sequence[int], Sequence[Sequence[int]]]
STREAM = 1024  # tokens of a stream: enough for a matrix product to be at full speed, 30 MB of activations at 135M
LONG = 64  # tokens from which the streams' own attention is faster than the model's
BODY = STREAM * 576  # likewise in a padded batch, as tokens x width: tiny models take thousands of tokens at once
SCORED = 512  # rows of a batch that are scored in one call


def response_logp(model: PreTrainedModel, batch: Batch) -> Tensor:
    """log p of a batch's response tokens, [B, L] nats, 0 where the mask is False. Carries gradients when they are on.

    The batch may be on another device than the model. float32, or float64 for a float64 model.
    """
    batch = batch.to(model.device)
    first = batch.common_start
    if first is not None:
        logp = token_logp(model, batch.tokens, first)
    else:
        columns = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        real = columns < (batch.start + batch.lengths)[:, None]  # [B, T]
        logp = token_logp(model, batch.tokens, batch.start, real)  # from the first start on
        logp = logp.gather(1, batch.positions - batch.start.min())
    return torch.where(batch.mask, logp, 0.0)


def score_batch(model: PreTrainedModel, batch: Batch, at_once: int = SCORED) -> NDArray[np.float64]:
    """log p of a batch's response tokens as numbers, [B, L] nats, 0 where the mask is False; `at_once` rows a call."""
    with torch.no_grad():
        values = torch.cat([response_logp(model, b) for b in batch.chunks(at_once)])
    return np.asarray(values.double().cpu().numpy())


def response_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Final hidden states before each response token, [B, L, D]: what the next token is predicted from."""
    batch = batch.to(model.device)
    hidden = parts(model).backbone(batch.tokens[:, :-1], use_cache=False).last_hidden_state  # [B, T - 1, D]
    first = batch.common_start
    if first is not None:
        return hidden[:, first - 1 :]
    before = (batch.positions - 1)[..., None].expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, before)


def next_token_logp(model: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """log p(next token | what came before) at every response position, [B, L, V] nats, of logits / `temperature`.

    The one place that holds a whole vocabulary for every token: callers cut batches into chunks.
    """
    found = parts(model)
    logits = found.head(response_states(model, batch))
    logits = logits if found.finish is None else found.finish(logits)
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def token_logp(
    model: PreTrainedModel, tokens: Tensor, start: int | Tensor, mask: Tensor | None = None, tile: int = LOGITS_TILE
) -> Tensor:
    """log p of every response token: `tokens[B, T]` -> `[B, T - s]`, s the first start; float64 for a float64 model.

    `start` (int or `[B]`) is where each row's response begins, >= 1. `mask[B, T]` is 1 on real tokens; padding may be
    on either side. Entries before a row's own start, or masked, are 0. Carries gradients when they are on.
    """
    first = _first(tokens, start)
    wanted = _wanted(tokens, start, mask, first)
    if not tokens[:, first:].numel():
        dtype = torch.promote_types(model.dtype, torch.float32)
        return torch.zeros(len(tokens), tokens.shape[1] - first, dtype=dtype, device=tokens.device)
    if torch.is_grad_enabled():
        return _responses(model, tokens, mask, wanted, first, tile)
    rows = max(1, BODY // (tokens.shape[1] * model.get_input_embeddings().weight.shape[1]))
    out = []
    for begin in range(0, len(tokens), rows):
        part = slice(begin, begin + rows)
        seen, asked = (None if x is None else x[part] for x in (mask, wanted))
        out.append(_responses(model, tokens[part], seen, asked, first, tile))
    return torch.cat(out)


def _responses(
    model: PreTrainedModel, tokens: Tensor, mask: Tensor | None, wanted: Tensor | None, first: int, tile: int
) -> Tensor:
    targets = tokens[:, first:]
    hidden = _hidden(model, tokens, mask)[:, first - 1 :]  # [B, T - s, D]
    if wanted is None:
        return target_logp(model, hidden.flatten(0, 1), targets.flatten(), tile).view(targets.shape)
    picked = target_logp(model, hidden[wanted], targets[wanted], tile)
    return picked.new_zeros(targets.shape).masked_scatter(wanted, picked)


def _first(tokens: Tensor, start: int | Tensor) -> int:
    first = int(start) if isinstance(start, int) else int(start.min())
    last = int(start) if isinstance(start, int) else int(start.max())
    if tokens.ndim != 2 or not 1 <= first <= last <= tokens.shape[1]:
        raise InputError(
            "a response starts at 1 or later and within its row",
            f"start {first} to {last} of {tuple(tokens.shape)}",
            "Put a token before it: the first token of a text has no log-probability.",
        )
    return first


def _wanted(tokens: Tensor, start: int | Tensor, mask: Tensor | None, first: int) -> Tensor | None:
    """[B, T - s], or None for all."""
    wanted = None if mask is None else mask[:, first:].bool()
    if isinstance(start, Tensor):
        begun = torch.arange(first, tokens.shape[1], device=tokens.device) >= start.view(-1, 1)
        wanted = begun if wanted is None else wanted & begun
    return wanted


def _hidden(model: PreTrainedModel, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Hidden states [B, T - 1, D] of all tokens but the last."""
    extra: dict[str, Any] = {}
    if mask is not None:
        seen = mask[:, :-1].long()
        if bool((seen[:, 1:] > seen[:, :-1]).any()):  # padding in front; behind, causality alone keeps it out
            extra = {"attention_mask": seen, "position_ids": (seen.cumsum(-1) - 1).clamp(min=0)}
    backbone = parts(model).backbone
    if tokens.shape[1] > LONG and not (extra or torch.is_grad_enabled() or model.training) and _streams(model):
        with suppress(Unsupported), attending(model, None):
            return backbone(tokens[:, :-1], use_cache=False).last_hidden_state
    return backbone(tokens[:, :-1], use_cache=False, **extra).last_hidden_state


@torch.no_grad()
def score_rows(
    model: PreTrainedModel, rows: Sequence[Row], *, stream: int = STREAM, tile: int = LOGITS_TILE
) -> list[list[NDArray[np.float64]]]:
    """log p of the tokens of every response of every row `(prompt ids, [response ids, ...])`, given its prompt.

    Returns one float64 array a response. An empty response gives an empty array. `stream` bounds the tokens computed
    together (a longer row goes alone); results do not depend on it beyond rounding. The model is scored in eval mode.
    Raises InputError for an empty prompt, a token outside the vocabulary, or a row beyond the model's positions.
    """
    _check_rows(model, rows)
    training = model.training
    model.eval()
    try:
        score = _one_stream if _streams(model) else _one_by_one
        out: list[list[NDArray[np.float64]]] = []
        for group in _groups(rows, stream):
            try:
                scored = score(model, group, tile)
            except Unsupported:  # a window that only longer rows reach
                scored = _one_by_one(model, group, tile)
            flat = iter(scored)
            out += [[next(flat) for _ in responses] for _, responses in group]
        return out
    finally:
        model.train(training)


def _groups(rows: Sequence[Row], stream: int) -> list[list[Row]]:
    """Rows in their order, in groups of at most `stream` tokens."""
    groups: list[list[Row]] = []
    room = 0
    for row in rows:
        length = row_length(*row)
        if not groups or length > room:
            groups.append([])
            room = stream
        groups[-1].append(row)
        room -= length
    return groups


def _one_stream(model: PreTrainedModel, rows: Sequence[Row], tile: int) -> list[NDArray[np.float64]]:
    device = model.get_input_embeddings().weight.device
    stream = Stream()
    for prompt, responses in rows:
        stream.add(prompt, responses)
    lengths = [len(t) for t in stream.targets]
    if not sum(lengths):
        return [np.zeros(0) for _ in lengths]
    tokens, positions = (torch.tensor([x], device=device) for x in (stream.tokens, stream.positions))
    with attending(model, stream.segments):
        hidden = parts(model).backbone(tokens, position_ids=positions, use_cache=False).last_hidden_state[0]
    predictors = torch.tensor([i for p in stream.predictors for i in p], device=device)
    targets = torch.tensor([i for t in stream.targets for i in t], device=device)
    logp = target_logp(model, hidden[predictors], targets, tile)
    return [x.double().cpu().numpy() for x in logp.split(lengths)]


def _one_by_one(model: PreTrainedModel, rows: Sequence[Row], tile: int) -> list[NDArray[np.float64]]:
    """For architectures whose attention is their own: every response with its prompt, alone."""
    device = model.get_input_embeddings().weight.device
    out = []
    for prompt, responses in rows:
        for response in responses:
            tokens = torch.tensor([[*prompt, *response]], device=device)
            out.append(token_logp(model, tokens, len(prompt), tile=tile)[0].double().cpu().numpy())
    return out


_STREAMS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _streams(model: PreTrainedModel) -> bool:
    """Whether a flat stream gives this model's own answer; tried once a model on two short rows.

    Settings do not tell: some architectures carry state from token to token beside attention.
    """
    known = _STREAMS.get(model)
    if known is None:
        rows: list[Row] = [([1, 0, 2], [[1, 2, 0, 1], [0, 0, 1]]), ([2], [[0, 1], [2, 2, 1]])]
        plain = np.concatenate(_one_by_one(model, rows, LOGITS_TILE))
        try:
            flat = np.concatenate(_one_stream(model, rows, LOGITS_TILE))
            slack = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.3
            known = bool(np.abs(flat - plain).max() <= slack)
        except (Unsupported, TypeError, ValueError, KeyError):
            known = False
        _STREAMS[model] = known
    return known


def _check_rows(model: PreTrainedModel, rows: Sequence[Row]) -> None:
    text = model.config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    for n, (prompt, responses) in enumerate(rows):
        if not len(prompt):
            raise InputError("a prompt has at least one token", f"row {n}", "Begin it with the model's BOS token.")
        longest = len(prompt) + max((len(r) for r in responses), default=0)
        if limit is not None and longest > limit:
            cure = "Leave the row out or cut it yourself: nothing is cut silently."
            raise InputError(f"a row fits the model's {limit} positions", f"row {n} of {longest} tokens", cure)
        for ids in (prompt, *responses):
            if len(ids) and not (min(ids) >= 0 and max(ids) < text.vocab_size):
                raise InputError("tokens are of the model's vocabulary", f"row {n}", "Use the model's own tokenizer.")
