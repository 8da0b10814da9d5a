"""A model along the responses of a batch: log-probabilities of their tokens, and the states before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignfirst.lm.text.batch import Batch
from alignfirst.lm.text.head import parts
from alignfirst.lm.text.logprobs import token_logp


def response_logp(model: Any, batch: Batch) -> Tensor:
    """log p of response tokens, [B, L], 0 where the mask is False. Carries gradients when they are on."""
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


def token_logps(model: Any, batch: Batch, chunk: int | None = None) -> NDArray[np.float64]:
    """The same as plain numbers."""
    with torch.no_grad():
        values = torch.cat([response_logp(model, b) for b in batch.chunks(chunk)])
    return np.asarray(values.double().cpu().numpy())


def response_states(model: Any, batch: Batch) -> Tensor:
    """Final hidden states before each response token, [B, L, D]: what the next token is predicted from."""
    batch = batch.to(model.device)
    hidden = parts(model).backbone(batch.tokens[:, :-1], use_cache=False).last_hidden_state  # [B, T - 1, D]
    first = batch.common_start
    if first is not None:
        return hidden[:, first - 1 :]
    before = (batch.positions - 1)[..., None].expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, before)


def next_token_logp(model: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
    """log p(next token | what came before) at every response position, [B, L, V].

    The one place that holds a whole vocabulary for every token: callers cut batches into chunks.
    """
    found = parts(model)
    logits = found.head(response_states(model, batch))
    logits = logits if found.finish is None else found.finish(logits)
    return torch.log_softmax(logits.float() / temperature, dim=-1)
