"""Every distillation divergence, on log-probabilities: natural logs, V outcomes (tokens) in the last axis.

Arrays in, arrays out. The trainers' losses are tested against these. Per-token values are [...]; per-sequence values
sum them over a sequence's own tokens. A token of probability 0 is -inf: it counts nothing on the side that takes the
expectation, and makes the divergence inf on the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

from alignfirst.errors import InputError
from alignfirst.theory.tilt import FloatArray, require_positive


def sharpen(logp: ArrayLike, selectivity: float) -> FloatArray:
    """log of p^s / sum p^s, [..., V]: selectivity s = 1 / temperature. s = 1 normalises and changes nothing else."""
    require_positive("selectivity", selectivity)
    return np.asarray(log_softmax(selectivity * np.asarray(logp, dtype=np.float64), axis=-1))


def forward_kl(logp_teacher: FloatArray, logp_student: FloatArray) -> FloatArray:
    """KL(teacher || student) per token, [..., V] -> [...]: mass-covering (Hinton et al. 2015; Sanh et al. 2019)."""
    return _kl(logp_teacher, logp_student)


def reverse_kl(logp_teacher: FloatArray, logp_student: FloatArray) -> FloatArray:
    """KL(student || teacher) per token, [..., V] -> [...]: mode-seeking (Gu et al. 2024, MiniLLM).

    On-policy distillation takes it at the prefixes of the student's own samples (Agarwal et al. 2024, GKD).
    """
    return _kl(logp_student, logp_teacher)


def _kl(logp: FloatArray, logq: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):  # 0 * inf, put right below
        terms = np.exp(logp) * (logp - logq)
    return np.asarray(np.where(logp > -np.inf, terms, 0.0).sum(-1))


def topk_forward_kl(logp_teacher: FloatArray, logp_student: FloatArray, k: int, tail: bool = True) -> FloatArray:
    """Forward KL from the teacher's k likeliest tokens, for teachers whose full distribution is too large to keep.

    [..., V] -> [...]. With `tail` all other tokens are one bucket, of their summed mass on either side: merging
    can only lose information (data processing), so this bounds the full KL from below, and equals it from k = V - 1 on.
    Without `tail` the k terms alone, which bound nothing and may be negative: some trainers use them, so compare.
    """
    size = logp_teacher.shape[-1]
    if not 1 <= k <= size:
        raise InputError(f"k must lie in 1..{size}", k, "Take at most as many tokens as there are.")
    order = np.argsort(-logp_teacher, axis=-1, kind="stable")
    teacher, student = (np.take_along_axis(x, order, axis=-1) for x in (logp_teacher, logp_student))
    if tail and k < size:
        teacher, student = (_with_tail(x, k) for x in (teacher, student))
        return _kl(teacher, student)
    return _kl(teacher[..., :k], student[..., :k])


def _with_tail(logp: FloatArray, k: int) -> FloatArray:
    return np.concatenate([logp[..., :k], logsumexp(logp[..., k:], axis=-1, keepdims=True)], axis=-1)


def token_logp(logp: FloatArray, tokens: NDArray[np.integer]) -> FloatArray:
    """log-probability of each sampled token: logp [..., V], tokens [...] -> [...]."""
    return np.asarray(np.take_along_axis(logp, tokens[..., None], axis=-1)[..., 0])


def per_sequence(per_token: FloatArray, mask: NDArray[np.bool_] | None = None) -> FloatArray:
    """Sum over a sequence's own tokens, [..., L] -> [...]; where the mask is False (padding) any value is left out."""
    return np.asarray(per_token.sum(-1) if mask is None else np.where(mask, per_token, 0.0).sum(-1))


def sequence_nll(logp_tokens: FloatArray, mask: NDArray[np.bool_] | None = None) -> FloatArray:
    """-log student(y) of teacher samples y, from log-probabilities of their tokens, [..., L] -> [...].

    Sequence-level distillation (Kim and Rush 2016). Its mean over teacher samples is KL(teacher ||
    student) over whole sequences plus the teacher's entropy, a constant.
    """
    return -per_sequence(logp_tokens, mask)


def reverse_kl_of_samples(
    logp_student_tokens: FloatArray, logp_teacher_tokens: FloatArray, mask: NDArray[np.bool_] | None = None
) -> FloatArray:
    """log student(y) - log teacher(y) of student samples y, [..., L] -> [...].

    Its mean estimates the reverse KL of whole sequences: unbiased, and noisier than summing the per-token
    `reverse_kl` at the same prefixes, whose mean is the same.
    """
    return per_sequence(logp_student_tokens, mask) - per_sequence(logp_teacher_tokens, mask)
