"""How varied texts are: n-grams of token sequences [N, L], of which the first `lengths[N]` tokens count."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]


def distinct(tokens: Tokens, n: int, lengths: Tokens | None = None) -> float:
    """Distinct n-grams over all n-grams of a set of sequences (Li et al. 2016, arXiv 1510.03055); 0 without any."""
    grams, own = ngrams(tokens, n, lengths)
    found = grams[own]
    return len(np.unique(found, axis=0)) / len(found) if len(found) else 0.0


def repetition(tokens: Tokens, n: int, lengths: Tokens | None = None) -> float:
    """Mean over sequences of the share of n-grams seen before in it (seq-rep-n, Welleck et al. 2020)."""
    grams, own = ngrams(tokens, n, lengths)  # [N, M, n], [N, M]
    _, code = np.unique(grams.reshape(-1, n), axis=0, return_inverse=True)
    code = np.where(own, code.reshape(own.shape), -1)  # what is not its own is one gram more, and not counted
    ordered = np.sort(code, axis=1)
    new = (ordered[:, :1] >= 0).sum(1) + ((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(1)
    count = own.sum(1)
    return float((1 - new[count > 0] / count[count > 0]).mean()) if count.any() else 0.0


def ngrams(tokens: Tokens, n: int, lengths: Tokens | None = None) -> tuple[Tokens, NDArray[np.bool_]]:
    """[N, L] -> the n-grams [N, L - n + 1, n], and which of them lie within their sequence [N, L - n + 1]."""
    grams = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)
    if lengths is None:
        return grams, np.ones(grams.shape[:2], np.bool_)
    return grams, np.arange(grams.shape[1]) <= np.asarray(lengths)[:, None] - n
